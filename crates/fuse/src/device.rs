//! Mounting: the device that requests come from.

use crate::READ_AHEAD;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, statx};
use rustix::io::FdFlags;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};
use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

/// How a file system is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What `mount` and `df` show as its source.
    pub source: String,
    pub read_only: bool,
    /// Others than who mounts it may use it; the administrator's to allow.
    pub allow_other: bool,
    /// The kernel checks the modes of files.
    pub check_modes: bool,
    /// Programs may take their owner's rights, and device nodes are devices.
    pub privileged: bool,
}

/// The device of a mounted file system. It is unmounted by [`unmount`]; when this is closed first, whoever uses it gets
/// `ENOTCONN`.
#[derive(Debug)]
pub struct Device(OwnedFd);

/// Where a device is to be had.
const DEVICE: &str = "/dev/fuse";
/// What mounts for those who may not.
const HELPER: &str = "fusermount3";
/// The kind of file system, as `mount` shows it.
const KIND: &str = "fuse.steradian";

impl Device {
    /// Mounts a file system on the directory `at`.
    pub fn mount(at: &Path, options: &MountOptions) -> io::Result<Device> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Device(helped(at, options)?));
        }
        let device = direct(at, options)?;
        // What reads one after the other is slower without it, and no less right.
        if let Err(error) = read_ahead(at) {
            tracing::debug!(at = %at.display(), %error, "the kernel reads ahead as little as it always does");
        }
        Ok(Device(device))
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }
}

fn direct(at: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let device = device.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot open {DEVICE} ({error}): the kernel's module `fuse` is needed"),
        )
    })?;
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let mut data = format!("fd={},rootmode=40000,user_id={uid},group_id={gid}", device.as_raw_fd());
    if options.allow_other {
        data.push_str(",allow_other");
    }
    if options.check_modes {
        data.push_str(",default_permissions");
    }
    let data = CString::new(data)?;
    let mut flags = MountFlags::empty();
    if options.read_only {
        flags |= MountFlags::RDONLY;
    }
    if !options.privileged {
        flags |= MountFlags::NOSUID | MountFlags::NODEV;
    }
    rustix::mount::mount(options.source.as_str(), at, KIND, flags, data.as_c_str())?;
    Ok(device)
}

/// Has the kernel read further ahead in the files of a mount than its 128 KiB: the way to the bytes is longer than to a disk.
fn read_ahead(at: &Path) -> io::Result<()> {
    // Without asking who serves it: nobody does yet.
    let stat = statx(CWD, at, AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?;
    let (major, minor) = (stat.stx_dev_major, stat.stx_dev_minor);
    std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), (READ_AHEAD / 1024).to_string())
}

/// The helper mounts, and hands the device over a socket whose number it finds in its environment.
fn helped(at: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty())?;
    // A comma would begin another option.
    let source = options.source.replace(['\\', ','], "_");
    let mut words = format!("subtype=steradian,fsname={source}");
    for (wanted, word) in [
        (options.read_only, ",ro"),
        (options.allow_other, ",allow_other"),
        (options.check_modes, ",default_permissions"),
    ] {
        if wanted {
            words.push_str(word);
        }
    }
    let mut helper = Command::new(HELPER);
    helper.args(["-o", &words, "--"]).arg(at).env("_FUSE_COMMFD", theirs.as_raw_fd().to_string());
    let output = helper.output().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot run {HELPER} ({error}): install the package fuse3, or mount as root"),
        )
    })?;
    drop(theirs);
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut messages = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    rustix::net::recvmsg(&ours, &mut [IoSliceMut::new(&mut byte)], &mut messages, RecvFlags::CMSG_CLOEXEC)?;
    let device = messages.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut devices) => devices.next(),
        _ => None,
    });
    device.ok_or_else(|| io::Error::other(format!("{HELPER} gave no device")))
}

/// Unmounts what is mounted on a directory. `detach`: at once, although it is used; who has a file of it open keeps that.
pub fn unmount(at: &Path, detach: bool) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let flags = if detach { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        return Ok(rustix::mount::unmount(at, flags)?);
    }
    let mut helper = Command::new(HELPER);
    helper.arg("-u");
    if detach {
        helper.arg("-z");
    }
    let output = helper.arg("--").arg(at).output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
