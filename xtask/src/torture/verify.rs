//! `zkv verify` of what is left of a store.

use std::path::Path;

use serde::Deserialize;

use crate::torture::command::{Zkv, finish};

/// What a power cut may take from a segment whose blocks it leaves: it is repeated elsewhere, and
/// written again with the first write behind the cut.
const LOST_HEADER: &str = "a segment's header";
const DAMAGED: i32 = 3;

/// What may be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Nothing but notices.
    BeSound,
    /// Headers that a power cut took, too.
    LackHeaders,
}

/// Of what the command prints, what counts here.
#[derive(Debug, Deserialize)]
struct Report {
    findings: Vec<Finding>,
    findings_left_out: u64,
}

#[derive(Debug, Deserialize)]
struct Finding {
    severity: String,
    what: String,
}

/// Verifies the store at `path`, if there is one, and says whether a header is missing.
pub fn verify(zkv: &Zkv, path: &Path, may: May) -> Result<bool, String> {
    if !path.exists() {
        return Ok(false);
    }
    let mut command = zkv.command(["verify".as_ref(), "--json".as_ref(), path.as_os_str()]);
    let outcome = finish(&mut command).map_err(|error| error.to_string())?;
    judge(outcome.code(), &outcome.output, may).map_err(|problem| {
        let printed = String::from_utf8_lossy(&outcome.output);
        format!("verifying: {problem}: {}, printing {printed}", outcome.describe())
    })
}

fn judge(code: Option<i32>, printed: &[u8], may: May) -> Result<bool, String> {
    let report: Report =
        serde_json::from_slice(printed).map_err(|error| format!("no report: {error}"))?;
    let is_damage = |finding: &&Finding| finding.severity != "notice";
    let is_lost_header =
        |finding: &Finding| finding.severity == "mendable" && finding.what == LOST_HEADER;
    let mut damage = report.findings.iter().filter(is_damage);
    match code {
        Some(0) if damage.next().is_none() => Ok(false),
        Some(DAMAGED)
            if may == May::LackHeaders
                && damage.all(is_lost_header)
                && report.findings_left_out == 0 =>
        {
            Ok(true)
        }
        _ => Err("it finds damage".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: &[(&str, &str)]) -> String {
        let findings = findings.iter().map(|(severity, what)| {
            format!(r#"{{"file":"data","offset":4096,"severity":"{severity}","what":"{what}"}}"#)
        });
        let findings = findings.collect::<Vec<_>>().join(",");
        format!(r#"{{"sound":true,"findings":[{findings}],"findings_left_out":0}}"#)
    }

    #[test]
    fn notices_pass_and_a_header_that_the_power_took() {
        let notice = ("notice", "bytes behind the last commit");
        let header = ("mendable", LOST_HEADER);
        for may in [May::BeSound, May::LackHeaders] {
            assert_eq!(judge(Some(0), report(&[notice]).as_bytes(), may), Ok(false));
        }
        let headers = report(&[notice, header, header]);
        assert_eq!(judge(Some(3), headers.as_bytes(), May::LackHeaders), Ok(true));
        assert!(judge(Some(3), headers.as_bytes(), May::BeSound).is_err());
    }

    #[test]
    fn damage_does_not_pass() {
        let header = ("mendable", LOST_HEADER);
        for other in [("loss", LOST_HEADER), ("mendable", "a segment's seal")] {
            let printed = report(&[header, other]);
            assert!(judge(Some(3), printed.as_bytes(), May::LackHeaders).is_err(), "{other:?}");
            assert!(judge(Some(0), printed.as_bytes(), May::LackHeaders).is_err(), "{other:?}");
        }
        assert!(judge(Some(4), b"", May::LackHeaders).is_err());
        assert!(judge(None, report(&[]).as_bytes(), May::LackHeaders).is_err());
    }
}
