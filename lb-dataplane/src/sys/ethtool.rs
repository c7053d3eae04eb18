//! What an interface's driver is, and its features, by the names that the kernel gives them (`ethtool -k` has others for some).

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The feature `rxvlan`, and the same for S-tags (802.1ad).
pub(crate) const RX_C_TAG: &str = "rx-vlan-hw-parse";
/// As above.
pub(crate) const RX_S_TAG: &str = "rx-vlan-stag-hw-parse";

/// `ETHTOOL_GDRVINFO`, `ETHTOOL_GSTRINGS`, `ETHTOOL_GSSET_INFO`, `ETHTOOL_GFEATURES` and `ETHTOOL_SFEATURES` of
/// `linux/ethtool.h`.
const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
/// `ETH_SS_FEATURES`.
const SS_FEATURES: u32 = 4;
/// Words of a name (`ETH_GSTRING_LEN`), and of `struct ethtool_drvinfo`.
const NAME_WORDS: usize = 8;
const DRVINFO_WORDS: usize = 49;
/// Names at most: the kernel has about 64.
const MAX_FEATURES: u32 = 1024;

/// The name of an interface's driver, as `ethtool -i` shows it.
pub(crate) fn driver(interface: &str) -> io::Result<String> {
    let mut info = [0; DRVINFO_WORDS];
    info[0] = GDRVINFO;
    ask(interface, &mut info)?;
    Ok(name(&info[1..=NAME_WORDS]))
}

/// The features of an interface.
pub(crate) struct Features {
    names: Vec<String>,
    /// A bit each: whether it is on.
    active: Vec<u32>,
}

impl Features {
    pub(crate) fn of(interface: &str) -> io::Result<Self> {
        // `struct ethtool_sset_info`: command, reserved, a mask of 64 bits, and as many counts as it has bits.
        let mut count = [GSSET_INFO, 0, 0, 0, 0];
        count[2..4].copy_from_slice(&halves(1 << SS_FEATURES));
        ask(interface, &mut count)?;
        let count = count[4].min(MAX_FEATURES) as usize;
        // `struct ethtool_gstrings`: command, set, count, and the names.
        let mut strings = vec![0; 3 + count * NAME_WORDS];
        strings[..3].copy_from_slice(&[GSTRINGS, SS_FEATURES, count as u32]);
        ask(interface, &mut strings)?;
        let names = strings[3..].chunks_exact(NAME_WORDS).map(name).collect();
        // `struct ethtool_gfeatures`: command, size, and blocks of what is available, requested, active and never changed.
        let blocks = count.div_ceil(32);
        let mut features = vec![0; 2 + blocks * 4];
        features[..2].copy_from_slice(&[GFEATURES, blocks as u32]);
        ask(interface, &mut features)?;
        let active = features[2..].chunks_exact(4).map(|block| block[2]).collect();
        Ok(Self { names, active })
    }

    fn place(&self, feature: &str) -> Option<usize> {
        self.names.iter().position(|name| name == feature)
    }

    /// Whether one is on; a kernel that does not know it has it off.
    pub(crate) fn has(&self, feature: &str) -> bool {
        self.place(feature).is_some_and(|place| self.active[place / 32] >> (place % 32) & 1 == 1)
    }

    /// Switches one on or off.
    pub(crate) fn set(&self, interface: &str, feature: &str, on: bool) -> io::Result<()> {
        let place = self.place(feature).ok_or(io::ErrorKind::Unsupported)?;
        // `struct ethtool_sfeatures`: command, size, and blocks of which are to change and of what they are to be.
        let mut request = vec![0; 2 + self.active.len() * 2];
        request[..2].copy_from_slice(&[SFEATURES, self.active.len() as u32]);
        let block = 2 + place / 32 * 2;
        request[block] = 1 << (place % 32);
        request[block + 1] = u32::from(on) << (place % 32);
        ask(interface, &mut request)
    }
}

/// A number of 64 bits as two words.
fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

fn name(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A structure that begins with its command, and is as large as the kernel's answer to it.
fn ask(interface: &str, structure: &mut [u32]) -> io::Result<()> {
    let interface = CString::new(interface)?;
    let inet = AddressFamily::Inet;
    let socket = socket(inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.to_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = structure.as_mut_ptr().cast();
    // SAFETY: the request names the interface and a structure that is the command's own and outlives the call.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    match result {
        0 => Ok(()),
        // Not done, or not as it was asked for (`ETHTOOL_F_UNSUPPORTED` and others).
        1.. => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
