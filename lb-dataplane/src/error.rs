//! What can go wrong, one type per question that a caller asks.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use aya::maps::MapError;
use aya::programs::ProgramError;

/// Why the dataplane could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel refuses eBPF to this process.
    #[error(
        "eBPF is not permitted here: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    NotPermitted(#[source] io::Error),
    /// No grace periods: what packets may still read could not be told from what is free.
    #[error(
        "the kernel refuses membarrier(2) to this process: allow it in the seccomp filter, and boot without nohz_full, \
         with which the kernel has no MEMBARRIER_CMD_GLOBAL"
    )]
    Membarrier(#[source] io::Error),
    /// The kernel lacks something.
    #[error("kernel {found} is too old: {needed} or later is needed")]
    OldKernel {
        /// This kernel.
        found: String,
        /// The oldest that works.
        needed: &'static str,
    },
    /// The processor may let loads and stores overtake one another.
    #[error(
        "lbd runs on x86-64 only: its programs read flows beside their writers, in an order that {found} does not keep"
    )]
    OtherProcessor {
        /// The processor's architecture.
        found: &'static str,
    },
    /// The kernel would interpret the programs, which have calls that it has no interpreter for.
    #[error(
        "the kernel does not compile eBPF programs, which lbd needs: `sysctl -w net.core.bpf_jit_enable=1` in the host's first \
         network namespace, and the same in /etc/sysctl.d for the next boot; a kernel without CONFIG_BPF_JIT cannot run lbd"
    )]
    NoJit,
    /// No bpffs at the pin folder, and none could be mounted.
    #[error(
        "cannot mount a bpffs at {path}: run as root, or mount one there with `mount -t bpf bpf {path}`"
    )]
    Mount {
        /// The pin folder.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// A folder or pin could not be made, read or removed.
    #[error("cannot use {path}")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// A pinned map is not what this program needs.
    #[error(
        "pinned map {map} in {path} has {what} {pinned}, this configuration needs {wanted}: set the size back, or remove \
         {path} (its flows end) and start again"
    )]
    Mismatch {
        /// The map.
        map: String,
        /// Its folder.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What is pinned.
        pinned: u32,
        /// What is needed.
        wanted: u32,
    },
    /// A map could not be read.
    #[error("cannot read a pinned map")]
    Map(#[from] MapError),
    /// Rings, backends or what is counted of them could not be mapped.
    #[error("cannot map the tables of the services into memory")]
    Memory(#[source] io::Error),
    /// The programs could not be loaded.
    #[error("cannot load the eBPF object")]
    Load(#[from] Box<aya::EbpfError>),
    /// The kernel's verifier or loader refuses a program.
    #[error("the kernel refuses program {program}")]
    Program {
        /// The program.
        program: &'static str,
        /// What the kernel says.
        #[source]
        source: Arc<ProgramError>,
    },
    /// The FIB in the maps could not be taken over.
    #[error("cannot map the FIB")]
    Fib(#[source] io::Error),
    /// The service tables in the maps could not be taken over.
    #[error("cannot take over the service tables")]
    Tables(#[from] ApplyError),
}

/// Why the fast path could not be attached to an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No such interface.
    #[error("no interface {0}")]
    NoInterface(String),
    /// The interface has no Ethernet address.
    #[error("interface {0} is no Ethernet interface")]
    NotEthernet(String),
    /// Somebody else's XDP program is there.
    #[error("interface {interface} carries another XDP program{}: detach it with `ip link set {interface} xdp off`, or choose hook tc", name.as_ref().map_or(String::new(), |n| format!(" ({n})")))]
    Taken {
        /// The interface.
        interface: String,
        /// The program's name, or its id where the kernel tells no more.
        name: Option<String>,
    },
    /// The program of the hook that it would be attached to is not loaded, and was not to be.
    #[error("the program for interface {interface} is not loaded yet")]
    NotLoaded {
        /// The interface.
        interface: String,
        /// The hook.
        hook: crate::Hook,
    },
    /// The driver cannot.
    #[error(
        "driver {driver} of interface {interface} has no native XDP (or not with this MTU or these offloads): choose hook tc, or xdp_mode auto or generic"
    )]
    NoNativeXdp {
        /// The interface.
        interface: String,
        /// Its driver.
        driver: String,
        /// What the kernel says.
        #[source]
        source: Box<ProgramError>,
    },
    /// The kernel refuses.
    #[error("cannot attach to interface {interface}")]
    Refused {
        /// The interface.
        interface: String,
        /// What the kernel says.
        #[source]
        source: Box<ProgramError>,
    },
    /// The hook's program could not be loaded.
    #[error("the program for interface {interface} is not there")]
    Load {
        /// The interface.
        interface: String,
        /// Why not.
        #[source]
        source: Arc<OpenError>,
    },
    /// The link could not be pinned, or the interface not be noted.
    #[error("cannot keep the attachment to interface {interface}")]
    Keep {
        /// The interface.
        interface: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

/// Why a service table was not applied. What was written before the error stays and is consistent.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The table asks for more than the maps hold, or for what the dataplane does not do.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
    /// A map could not be read or written.
    #[error("cannot write map {map}")]
    Map {
        /// The map.
        map: &'static str,
        /// What the kernel says.
        #[source]
        source: MapError,
    },
    /// The kernel has no grace periods for us.
    #[error("cannot wait for running programs (membarrier)")]
    Grace(#[source] io::Error),
}

/// Why counters or flows could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read map {map}")]
pub struct ReadError {
    /// The map.
    pub map: &'static str,
    /// What the kernel says.
    #[source]
    pub source: io::Error,
}
