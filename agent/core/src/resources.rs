//! From a container's resources to what the kernel is told, and to the pod's
//! quality of service.
//!
//! Sources: kubelet `cm/helpers_linux.go` (`MilliCPUToShares`, `MilliCPUToQuota`),
//! `qos/policy.go` (OOM score), `helper/qos/qos.go` (classes).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Length of a CPU quota period.
pub const CPU_PERIOD_MICROSECONDS: i64 = 100_000;

/// What the kernel is told about one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinuxResources {
    /// Relative weight.
    pub cpu_shares: i64,
    /// Microseconds of CPU in each period; 0 is no limit.
    pub cpu_quota: i64,
    /// Bytes; 0 is no limit.
    pub memory_limit: i64,
    /// Who is killed first when memory runs out.
    pub oom_score_adj: i64,
}

/// A quantity in thousandths, rounded up; `None` if it cannot be read.
pub fn milli(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let (numerator, denominator) = scale(suffix)?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() > 24 {
        return None;
    }
    let joined: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let over = joined.checked_mul(1000)?.checked_mul(numerator)?;
    let under = places.checked_mul(denominator)?;
    Some(over.div_euclid(under) + i128::from(over.rem_euclid(under) != 0))
}

fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let exponent: i32 = exponent.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

/// A quantity in whole units, rounded up.
pub fn units(quantity: &Quantity) -> Option<i64> {
    let milli = milli(quantity)?;
    i64::try_from(milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) != 0)).ok()
}

fn find(map: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<i64> {
    let quantity = map?.get(name)?;
    match name {
        "cpu" => i64::try_from(milli(quantity)?).ok(),
        _ => units(quantity),
    }
}

/// A container's request of `cpu` (millicores) or another resource (units);
/// a limit alone is its own request.
pub fn request(container: &Container, name: &str) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    find(resources.requests.as_ref(), name).or_else(|| find(resources.limits.as_ref(), name))
}

/// A container's limit of `cpu` (millicores) or another resource (units).
pub fn limit(container: &Container, name: &str) -> Option<i64> {
    find(container.resources.as_ref()?.limits.as_ref(), name)
}

/// Quality of service, as `status.qosClass` names it.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut any = false;
    let mut guaranteed = true;
    for container in all() {
        for name in ["cpu", "memory"] {
            let limit = limit(container, name).filter(|v| *v != 0);
            let request = request(container, name).filter(|v| *v != 0);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// What the kernel is told about `container` on a node of `node_memory` bytes.
pub fn linux(pod: &Pod, container: &Container, node_memory: i64) -> LinuxResources {
    let cpu_request = request(container, "cpu").unwrap_or(0);
    let cpu_shares = (cpu_request.saturating_mul(1024) / 1000).clamp(2, 262_144);
    let cpu_quota = match limit(container, "cpu") {
        Some(limit) if limit > 0 => (limit.saturating_mul(CPU_PERIOD_MICROSECONDS) / 1000).max(1000),
        _ => 0,
    };
    LinuxResources {
        cpu_shares,
        cpu_quota,
        memory_limit: limit(container, "memory").unwrap_or(0).max(0),
        oom_score_adj: oom_score_adj(pod, container, node_memory),
    }
}

fn oom_score_adj(pod: &Pod, container: &Container, node_memory: i64) -> i64 {
    let Some(spec) = pod.spec.as_ref() else {
        return 1000;
    };
    match qos_class(spec) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let asked = i128::from(request(container, "memory").unwrap_or(0));
            let share = asked * 1000 / i128::from(node_memory.max(1));
            i64::try_from((1000 - share).clamp(2, 999)).unwrap_or(999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ResourceRequirements;

    fn q(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    #[test]
    fn reads_quantities() {
        for (text, want) in [
            ("1", Some(1000)),
            ("100m", Some(100)),
            ("0.5", Some(500)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("1e3", Some(1_000_000)),
            ("2E", Some(2_000_000_000_000_000_000_000)),
            ("1u", Some(1)),
            ("x", None),
            ("1Qi", None),
            ("1e999", None),
            ("", None),
        ] {
            assert_eq!(milli(&q(text)), want, "{text}");
        }
    }

    #[test]
    fn shares_quota_and_class() {
        let mut container = Container::default();
        let mut pod = Pod::default();
        let spec = |c: &Container| PodSpec { containers: vec![c.clone()], ..PodSpec::default() };
        assert_eq!(qos_class(&spec(&container)), "BestEffort");
        container.resources = Some(ResourceRequirements {
            limits: Some([("cpu".into(), q("250m")), ("memory".into(), q("64Mi"))].into()),
            ..ResourceRequirements::default()
        });
        pod.spec = Some(spec(&container));
        assert_eq!(qos_class(&spec(&container)), "Guaranteed");
        let got = linux(&pod, &container, 1 << 30);
        assert_eq!((got.cpu_shares, got.cpu_quota, got.memory_limit, got.oom_score_adj), (256, 25_000, 64 << 20, -997));
    }
}
