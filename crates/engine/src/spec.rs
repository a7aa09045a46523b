//! [`ContainerSpec`]: what was asked for. The command line, and later the REST API, CRI and Kubernetes YAML,
//! all translate *into* it; the OCI runtime spec is derived *from* it by [`crate::plan`].
//!
//! It is stored as `container.json`, whose `format` says how to read it ([`FORMAT`]). Nothing here is resolved
//! yet: users are texts, images are references, a missing option is `None`, and defaults are applied by the plan.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version of the stored form.
pub const FORMAT: u32 = 1;

/// A container as it was asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Given name, or none for a generated one.
    pub name: Option<String>,
    /// Where the root filesystem comes from.
    pub root: Root,
    /// `--pull`.
    pub pull: PullPolicy,
    /// `--platform`/`--arch`/`--os`/`--variant`: `os/arch[/variant]`.
    pub platform: Option<String>,
    /// `--label`, label files first.
    pub labels: BTreeMap<String, String>,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
    /// `--rm`.
    pub remove: bool,
    /// `--replace`.
    pub replace: bool,
    /// The command line that created it, for inspect (`CreateCommand`).
    pub create_command: Vec<String>,
    /// `--pod`: its name or id; its id once it is settled.
    pub pod: Option<String>,
    /// It is its pod's infra container.
    pub infra: bool,
    /// The process.
    pub process: Process,
    /// Lives and ends.
    pub life: Life,
    /// Files.
    pub files: Files,
    /// Namespaces.
    pub namespaces: Namespaces,
    /// Network.
    pub network: Network,
    /// Security.
    pub security: Security,
    /// Limits.
    pub limits: Limits,
    /// Logs.
    pub log: Log,
    /// `--secret`.
    pub secrets: Vec<crate::secrets::SecretUse>,
    /// Health checks.
    pub health: crate::health::Health,
    /// `--runtime`: an OCI runtime that makes the process instead of our own; its path.
    pub runtime: Option<String>,
    /// `--runtime-flag`, with their dashes.
    pub runtime_flags: Vec<String>,
}

/// Where the root filesystem comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// An image by name or id, as typed.
    Image(String),
    /// `--rootfs DIR[:O]`: a directory of the host; `overlay` puts a container's own upper layer over it.
    Directory {
        /// The directory.
        path: PathBuf,
        /// `:O`.
        overlay: bool,
        /// `:idmap[=...]`: its files have other owners than on disk.
        #[serde(default)]
        shift: Option<String>,
    },
    /// Nothing but mount points: our own waiting program is all that runs in it.
    Empty,
}

impl Default for Root {
    fn default() -> Self {
        Root::Image(String::new())
    }
}

/// When to ask the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Only if the image is not here.
    #[default]
    Missing,
    /// Always; fail if it cannot be had.
    Always,
    /// Never.
    Never,
    /// If the registry has a newer one; keep the old if it cannot be asked.
    Newer,
}

/// The process in the container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Arguments after the image.
    pub command: Vec<String>,
    /// `--entrypoint`: `None` is the image's, `Some([])` clears it.
    pub entrypoint: Option<Vec<String>>,
    /// `-t`.
    pub terminal: bool,
    /// `-i`.
    pub interactive: bool,
    /// `-u`.
    pub user: Option<String>,
    /// `--group-add`, may hold `keep-groups`.
    pub groups: Vec<String>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `--env-file` then `-e`, resolved against the caller's environment (`-e NAME`, `-e PREFIX*`), in order.
    pub env: Vec<(String, String)>,
    /// `--env-host`: the caller's environment, captured.
    pub host_env: Vec<(String, String)>,
    /// `--unsetenv`.
    pub unset_env: Vec<String>,
    /// Variables of containers.conf, below the image's own.
    pub default_env: Vec<(String, String)>,
    /// `--env-merge`: set from the image's, such as `PATH=${PATH}:/x`.
    pub env_merge: Vec<(String, String)>,
    /// `--unsetenv-all`.
    pub unset_env_all: bool,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--no-hostname`: do not make /etc/hostname.
    pub no_hostname: bool,
    /// `--init`.
    pub init: bool,
    /// `--init-path`.
    pub init_path: Option<PathBuf>,
    /// `--umask`, octal.
    pub umask: Option<u32>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
    /// `--tz`: a zone's name or `local`.
    pub timezone: Option<String>,
    /// `--passwd` (default true): add the user to the container's passwd when it is missing.
    pub passwd: Option<bool>,
    /// `--passwd-entry`.
    pub passwd_entry: Option<String>,
    /// `--group-entry`.
    pub group_entry: Option<String>,
    /// `--hostuser`.
    pub host_users: Vec<String>,
    /// `--preserve-fds`, `--preserve-fd`: these are handed on.
    pub preserved_fds: Vec<u32>,
    /// `--systemd`: whether the program is systemd, and gets what that needs.
    pub systemd: Systemd,
    /// `--http-proxy` (default true): hand on http_proxy and its like.
    pub http_proxy: Option<bool>,
    /// `--sdnotify`: container, conmon, healthy, ignore.
    pub sdnotify: Option<String>,
    /// The service manager's socket of whoever made it.
    pub notify_socket: Option<String>,
}

/// Whether a container gets what systemd needs: tmpfs on its directories, a writable cgroup, SIGRTMIN+3 to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Systemd {
    /// If the command is systemd or an init.
    #[default]
    Auto,
    /// No.
    Never,
    /// Yes, whatever the command is.
    Always,
}

/// A resource limit of the process, `--ulimit NAME=SOFT[:HARD]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As in limits.conf: `nofile`; or `host` to keep the caller's.
    pub name: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// How it ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Life {
    /// `--stop-signal`, number.
    pub stop_signal: Option<u32>,
    /// `--stop-timeout`, seconds; none is 10.
    pub stop_timeout: Option<u32>,
    /// `--timeout`, seconds the container may run; 0 is for ever.
    pub timeout: u32,
    /// `--cidfile`.
    pub cidfile: Option<PathBuf>,
    /// `--pidfile`.
    pub pidfile: Option<PathBuf>,
    /// `--conmon-pidfile`.
    pub monitor_pidfile: Option<PathBuf>,
    /// `--restart`.
    pub restart: Restart,
    /// It was not given: a pod's, in a pod.
    pub restart_of_pod: bool,
    /// `--hooks-dir`; none are the usual ones.
    pub hooks_dirs: Vec<PathBuf>,
    /// `--rmi`: its image goes with it, if nobody else uses it.
    pub remove_image: bool,
}

/// When a container is started again after its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// After an exit code other than 0, so many times; 0 is without bound.
    OnFailure(u32),
    /// After every end that nobody asked for.
    Always,
    /// The same; after a boot only if it ran before.
    UnlessStopped,
}

impl std::fmt::Display for Restart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::No => "no",
            Self::OnFailure(_) => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        })
    }
}

impl std::str::FromStr for Restart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("on-failure", count)) => count
                .parse()
                .map(Self::OnFailure)
                .map_err(|_| format!("restart policy {text:?}: {count:?} is no number of restarts")),
            None if text == "on-failure" => Ok(Self::OnFailure(0)),
            None if matches!(text, "no" | "never" | "") => Ok(Self::No),
            None if text == "always" => Ok(Self::Always),
            None if text == "unless-stopped" => Ok(Self::UnlessStopped),
            _ => Err(format!(
                "\"{text}\" is not a valid restart policy: it is no, on-failure[:MAX], always, unless-stopped"
            )),
        }
    }
}

/// Files in the container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Files {
    /// `-v`, `--mount`, `--tmpfs`, in the order given.
    pub mounts: Vec<Mount>,
    /// `--volumes-from`.
    pub volumes_from: Vec<String>,
    /// `--image-volume`: anonymous (default), ignore, tmpfs.
    pub image_volume: Option<String>,
    /// `--read-only`.
    pub read_only: bool,
    /// `--read-only-tmpfs` (default true).
    pub read_only_tmpfs: Option<bool>,
    /// `--shm-size`, bytes.
    pub shm_size: Option<u64>,
    /// `--device HOST[:CONTAINER[:rwm]]`.
    pub devices: Vec<Device>,
    /// `--device-cgroup-rule`.
    pub device_cgroup_rules: Vec<String>,
    /// `--chrootdirs`.
    pub chrootdirs: Vec<String>,
    /// `--default-mounts-file`: lines `HOST[:CONTAINER]` whose files are copied into every container.
    pub default_mounts: Option<PathBuf>,
    /// `--hosts-file`: a path, `image` or `none`.
    pub hosts_file: Option<String>,
}

/// A mount that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// What kind.
    pub kind: MountKind,
    /// Host path (bind), volume's name (volume; empty = anonymous), glob pattern (glob), else empty.
    pub source: String,
    /// Path in the container, absolute.
    pub target: String,
    /// All options in their order, as typed but split: `ro`, `rw`, `z`, `Z`, `U`, `O`, `rbind`, `rprivate`, `noexec`,
    /// `size=...`, `mode=...`, `tmpcopyup`, `notmpcopyup`, `idmap[=...]`, `upperdir=`, `workdir=`, `copy`, `nocopy`, `subpath=...`
    pub options: Vec<String>,
}

/// Kinds of mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountKind {
    /// A host path.
    #[default]
    Bind,
    /// A named or anonymous volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// A new devpts.
    Devpts,
    /// A new ramfs.
    Ramfs,
    /// Host paths by pattern.
    Glob,
    /// Files of an image, by its name.
    Image,
    /// A filesystem of the kind that the option `fstype=` names, from a device.
    Filesystem,
}

/// A device of the host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Device {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// Of `rwm`.
    pub permissions: String,
}

/// A namespace's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Namespace {
    /// The engine's default for this kind.
    #[default]
    Default,
    /// A new one.
    Private,
    /// The host's (for ipc and uts too).
    Host,
    /// `ipc=none`: new, without /dev/shm.
    None,
    /// `ipc=shareable`.
    Shareable,
    /// Another container's, by name or id.
    Container(String),
    /// A file, such as /proc/PID/ns/net.
    Path(PathBuf),
}

/// Namespaces but the network's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// `--pid`.
    pub pid: Namespace,
    /// `--ipc`.
    pub ipc: Namespace,
    /// `--uts`.
    pub uts: Namespace,
    /// `--cgroupns`.
    pub cgroup: Namespace,
    /// `--userns`, as typed; parsed by `unroot_idmap::UsernsMode`.
    pub user: Option<String>,
    /// `--uidmap`, as typed.
    pub uidmap: Vec<String>,
    /// `--gidmap`.
    pub gidmap: Vec<String>,
    /// `--subuidname`.
    pub subuidname: Option<String>,
    /// `--subgidname`.
    pub subgidname: Option<String>,
}

/// The network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// `--network`, as typed; `None` is the default. Parsed by `unroot_network::Mode`.
    pub mode: Option<String>,
    /// Options of pasta for all containers, from containers.conf.
    pub pasta_options: Vec<String>,
    /// `-p`, as typed and checked. Parsed by `unroot_network::PortMap`.
    pub publish: Vec<String>,
    /// `-P`.
    pub publish_all: bool,
    /// `--expose`.
    pub expose: Vec<String>,
    /// `--dns`; `none` leaves /etc/resolv.conf alone.
    pub dns: Vec<String>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
    /// `--add-host NAME[;NAME]:IP`.
    pub add_hosts: Vec<String>,
    /// `--no-hosts`.
    pub no_hosts: bool,
    /// `--ip`.
    pub ip: Option<String>,
    /// `--ip6`.
    pub ip6: Option<String>,
    /// `--mac-address`.
    pub mac: Option<String>,
    /// `--network-alias`.
    pub aliases: Vec<String>,
}

/// Security.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// `--privileged`.
    pub privileged: bool,
    /// `--cap-add`, as typed, may hold `all`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// What containers have without the two, if containers.conf says so.
    pub default_capabilities: Option<Vec<String>>,
    /// `--security-opt`, as typed: no-new-privileges, seccomp=, label=, apparmor=, mask=, unmask=, proc-opts=.
    pub options: Vec<String>,
    /// Those of containers.conf, for namespaces of the container's own.
    pub default_sysctls: BTreeMap<String, String>,
    /// `--sysctl`.
    pub sysctls: BTreeMap<String, String>,
}

/// Limits, cgroup v2.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// `--memory`, bytes.
    pub memory: Option<u64>,
    /// `--memory-reservation`, bytes.
    pub memory_reservation: Option<u64>,
    /// `--memory-swap`, bytes in all (memory and swap); -1 is unlimited.
    pub memory_swap: Option<i64>,
    /// `--memory-swappiness`.
    pub memory_swappiness: Option<i64>,
    /// `--cpus`.
    pub cpus: Option<f64>,
    /// `--cpu-period`, microseconds.
    pub cpu_period: Option<u64>,
    /// `--cpu-quota`, microseconds.
    pub cpu_quota: Option<i64>,
    /// `--cpu-rt-period`.
    pub cpu_rt_period: Option<u64>,
    /// `--cpu-rt-runtime`.
    pub cpu_rt_runtime: Option<i64>,
    /// `--cpu-shares`.
    pub cpu_shares: Option<u64>,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_mems: Option<String>,
    /// `--pids-limit`; -1 is none. `None` is the default of 2048 where it can be had.
    pub pids: Option<i64>,
    /// `--blkio-weight`.
    pub blkio_weight: Option<u16>,
    /// `--blkio-weight-device PATH:WEIGHT`.
    pub blkio_weight_device: Vec<String>,
    /// `--device-read-bps PATH:RATE`.
    pub device_read_bps: Vec<String>,
    /// `--device-write-bps`.
    pub device_write_bps: Vec<String>,
    /// `--device-read-iops`.
    pub device_read_iops: Vec<String>,
    /// `--device-write-iops`.
    pub device_write_iops: Vec<String>,
    /// `--oom-kill-disable`.
    pub oom_kill_disable: bool,
    /// `--cgroup-conf KEY=VALUE`.
    pub cgroup_conf: BTreeMap<String, String>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--cgroups`: enabled, disabled, no-conmon, split.
    pub cgroups: Option<String>,
}

/// Logs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// `--log-driver`.
    pub driver: Option<String>,
    /// `--log-opt`, as typed.
    pub options: Vec<String>,
}
