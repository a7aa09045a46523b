//! Profiles in JSON: the OCI runtime spec's `linux.seccomp`, and Docker's with `archMap`, `includes`, `excludes`.

use serde::Deserialize;

use super::{ALLOW, Action, Compare, Condition, ERRNO, KILL_PROCESS, KILL_THREAD, LOG, Rule, Rules, TRAP};
use crate::process::capability_bits;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// A profile for a process with these capabilities.
pub fn parse(text: &[u8], capabilities: u64) -> Result<Rules, String> {
    let file: File = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let mut rules = Rules {
        default: action(&file.default_action, file.default_errno_ret)?,
        compat: file
            .architectures
            .iter()
            .chain(file.arch_map.iter().flat_map(|m| m.sub_architectures.iter().flatten()))
            .any(|a| matches!(a.as_str(), "SCMP_ARCH_X86" | "SCMP_ARCH_ARM")),
        ..Rules::default()
    };
    for entry in &file.syscalls {
        if !entry.includes.holds(capabilities, true)? || entry.excludes.holds(capabilities, false)? {
            continue;
        }
        let rule = Rule {
            conditions: entry.args.iter().flatten().map(condition).collect::<Result<_, _>>()?,
            action: action(&entry.action, entry.errno_ret)?,
        };
        for name in entry.names.iter().chain(&entry.name) {
            rules.calls.entry(name.clone().into()).or_default().to_mut().push(rule.clone());
        }
    }
    // a rule without conditions decides only after those that have some
    rules.calls.values_mut().for_each(|all| all.to_mut().sort_by_key(|rule| rule.conditions.is_empty()));
    Ok(rules)
}

impl Filter {
    /// Does it hold; one without any condition is `empty`.
    fn holds(&self, capabilities: u64, empty: bool) -> Result<bool, String> {
        let mut verdicts = Vec::new();
        if let Some(caps) = self.caps.as_ref().filter(|c| !c.is_empty()) {
            let bits = capability_bits(caps).map_err(|e| e.to_string())?;
            verdicts.push(if empty { capabilities & bits == bits } else { capabilities & bits != 0 });
        }
        if let Some(arches) = self.arches.as_ref().filter(|a| !a.is_empty()) {
            let own = if cfg!(target_arch = "aarch64") { ["arm64", "aarch64"] } else { ["amd64", "x86_64"] };
            verdicts.push(arches.iter().any(|a| own.contains(&a.as_str())));
        }
        if let Some(wanted) = &self.min_kernel {
            verdicts.push(kernel() >= version(wanted));
        }
        Ok(if verdicts.is_empty() {
            empty
        } else if empty {
            verdicts.iter().all(|v| *v)
        } else {
            verdicts.iter().any(|v| *v)
        })
    }
}

fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn kernel() -> (u32, u32) {
    version(&rustix::system::uname().release().to_string_lossy())
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, String> {
    match name {
        "SCMP_ACT_ALLOW" => Ok(ALLOW),
        "SCMP_ACT_ERRNO" => Ok(ERRNO | (errno.unwrap_or(1) & 0xffff)),
        "SCMP_ACT_LOG" => Ok(LOG),
        "SCMP_ACT_TRAP" => Ok(TRAP),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(KILL_THREAD),
        "SCMP_ACT_KILL_PROCESS" => Ok(KILL_PROCESS),
        _ => Err(format!(
            "action {name:?} is not one of SCMP_ACT_ALLOW, ERRNO, LOG, TRAP, KILL, KILL_THREAD, KILL_PROCESS"
        )),
    }
}

/// Rules as the runtime spec writes them (config-linux.md, "Seccomp").
pub fn document(rules: &Rules) -> serde_json::Value {
    let with_action = |mut object: serde_json::Value, keys: [&str; 2], action: Action| {
        let (name, errno) = match action & 0xffff_0000 {
            ALLOW => ("SCMP_ACT_ALLOW", None),
            LOG => ("SCMP_ACT_LOG", None),
            TRAP => ("SCMP_ACT_TRAP", None),
            KILL_PROCESS => ("SCMP_ACT_KILL_PROCESS", None),
            KILL_THREAD => ("SCMP_ACT_KILL_THREAD", None),
            _ => ("SCMP_ACT_ERRNO", Some(action & 0xffff)),
        };
        object[keys[0]] = name.into();
        if let Some(errno) = errno {
            object[keys[1]] = errno.into();
        }
        object
    };
    let argument = |c: &Condition| {
        let (op, value, second) = match c.compare {
            Compare::NotEqual => ("NE", c.value, 0),
            Compare::Less => ("LT", c.value, 0),
            Compare::LessEqual => ("LE", c.value, 0),
            Compare::Equal => ("EQ", c.value, 0),
            Compare::GreaterEqual => ("GE", c.value, 0),
            Compare::Greater => ("GT", c.value, 0),
            Compare::MaskedEqual(mask) => ("MASKED_EQ", mask, c.value),
        };
        serde_json::json!({"index": c.argument, "value": value, "valueTwo": second, "op": format!("SCMP_CMP_{op}")})
    };
    let calls: Vec<_> = rules
        .calls
        .iter()
        .flat_map(|(name, rules)| {
            // libseccomp has no order of rules: of a call with conditions only what these allow can be said
            let first = rules.first();
            let same =
                move |rule: &&Rule| first.is_none_or(|f| f.conditions.is_empty() || f.action == rule.action);
            rules.iter().filter(same).map(move |rule| (name, rule))
        })
        .filter(|(_, rule)| rule.action != rules.default)
        .map(|(name, rule)| {
            let arguments: Vec<_> = rule.conditions.iter().map(argument).collect();
            let object = serde_json::json!({"names": [name], "args": arguments});
            with_action(object, ["action", "errnoRet"], rule.action)
        })
        .collect();
    let architectures: &[&str] = match (cfg!(target_arch = "aarch64"), rules.compat) {
        (false, true) => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        (false, false) => &["SCMP_ARCH_X86_64"],
        (true, true) => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        (true, false) => &["SCMP_ARCH_AARCH64"],
    };
    let all = serde_json::json!({"architectures": architectures, "syscalls": calls});
    with_action(all, ["defaultAction", "defaultErrnoRet"], rules.default)
}

fn condition(argument: &Argument) -> Result<Condition, String> {
    let (compare, value) = match argument.op.as_str() {
        "SCMP_CMP_NE" => (Compare::NotEqual, argument.value),
        "SCMP_CMP_LT" => (Compare::Less, argument.value),
        "SCMP_CMP_LE" => (Compare::LessEqual, argument.value),
        "SCMP_CMP_EQ" => (Compare::Equal, argument.value),
        "SCMP_CMP_GE" => (Compare::GreaterEqual, argument.value),
        "SCMP_CMP_GT" => (Compare::Greater, argument.value),
        "SCMP_CMP_MASKED_EQ" => (Compare::MaskedEqual(argument.value), argument.value_two),
        other => return Err(format!("comparison {other:?} is unknown")),
    };
    if argument.index > 5 {
        return Err(format!("argument {}: a system call has six, 0 to 5", argument.index));
    }
    Ok(Condition { argument: argument.index, compare, value })
}
