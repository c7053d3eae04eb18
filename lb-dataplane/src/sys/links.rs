//! What the kernel says of attachments, and their end.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `BPF_OBJ_GET` of `linux/bpf.h`.
const BPF_OBJ_GET: libc::c_long = 7;
/// `BPF_OBJ_GET_INFO_BY_FD` of `linux/bpf.h`.
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// `BPF_LINK_DETACH` of `linux/bpf.h`.
const BPF_LINK_DETACH: libc::c_long = 34;

/// The part of `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
struct GetAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The part for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, as links at XDP and TC have it.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    ifindex: u32,
}

/// An attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The id of its program.
    pub(crate) program: u32,
    /// The index of its interface; 0 where that is gone.
    pub(crate) ifindex: u32,
}

/// The part for `BPF_LINK_DETACH`.
#[repr(C)]
struct DetachAttr {
    fd: u32,
}

/// Takes a program off its interface, and its attachment's pin away; nothing where there is none. It is off on return: without a
/// pin alone the kernel lets go of it only by and by, and what the program leads to may be gone by then.
pub(crate) fn take_off(pin: &Path) -> io::Result<()> {
    match open(pin) {
        Ok(link) => {
            let fd = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
            let attr = DetachAttr { fd };
            // What is off already, or whose interface is gone, is not to be taken off: the kernel says so by an error.
            // SAFETY: the attribute is the kernel's layout.
            let _is_off = unsafe {
                let size = size_of::<DetachAttr>();
                libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, &raw const attr, size)
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // What cannot be looked at, as when descriptors have run out, goes with its pin.
        Err(_) => {}
    }
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let attr = GetAttr { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the attribute is the kernel's layout, and its pointer names a string that outlives the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attr, size_of::<GetAttr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?) })
}

/// Looks at an attachment where it is pinned.
pub(crate) fn look_at(pin: &Path) -> io::Result<Link> {
    let link = open(pin)?;
    let mut info = LinkInfo::default();
    let attr = InfoAttr {
        fd: u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?,
        len: size_of::<LinkInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: the attribute is the kernel's layout, and its pointer names as many bytes of ours as it says.
    let told = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const attr, size_of::<InfoAttr>())
    };
    if told < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Link { program: info.program, ifindex: info.ifindex })
}
