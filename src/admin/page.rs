//! The status page: what is trusted until when, what is mounted, what was refused lately.

use jiff::{SpanRound, Timestamp, Unit};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Admin;
use crate::{
    cache::Cache,
    telemetry::{Record, Verdict},
    trust::Trust,
    updater::Status,
};

/// Refusals shown at once.
const SHOWN_MAX: usize = 50;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b1f24;\
background:#fff}h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid #d8dee4;vertical-align:top}\
code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}.ok{color:#116329}.no{color:#a40e26;font-weight:600}\
.dim{color:#59636e}@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,td{border-color:#30363d}\
.ok{color:#3fb950}.no{color:#f85149}.dim{color:#9198a1}}";

/// Renders the page; `query` may be `id=<request id>`, which shows only that request.
pub(super) fn render(admin: &Admin, query: &str) -> String {
    let now = admin.clock.now();
    let wanted = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "id").map(|(_, value)| value);
    let records = admin.audit.recent(SHOWN_MAX, |record| match &wanted {
        Some(id) => record.request == *id,
        // What is authentically absent is no news: pip asks for itself at each run.
        None => matches!(record.verdict, Verdict::Refused | Verdict::Unavailable),
    });
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "tufgate" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "tufgate " (env!("CARGO_PKG_VERSION")) }
                h2 { "Repositories" }
                @for repository in &admin.repositories { (repository_table(&repository.status(), now)) }
                h2 { "Mounts" }
                (mounts(admin))
                h2 { "Cache" }
                (cache(&admin.cache, now))
                h2 { @if let Some(id) = &wanted { "Request " code { (id) } } @else { "Refused or unavailable lately" } }
                (decisions(&records))
            }
        }
    };
    page.into_string()
}

fn repository_table(status: &Status, now: Timestamp) -> Markup {
    html! {
        p {
            strong { (status.name) } " "
            @if status.trusted { span class="ok" { "trusted" } } @else { span class="no" { "not trusted" } }
            @if let Some(at) = status.last_success { span class="dim" { " · last good refresh " (ago(at, now)) } }
            @if let Some(error) = &status.last_error { br; span class="no" { (error) } }
            @for damage in &status.damage {
                br; span class=(if damage.mended { "dim" } else { "no" }) { "damaged state: " (damage) }
            }
        }
        table {
            tr { th { "role" } th { "version" } th { "expires" } }
            @for role in &status.roles {
                tr {
                    td { code { (role.role.as_str()) } }
                    td { (role.version.get()) }
                    td class=[(role.expires <= now).then_some("no")] { (role.expires) " (" (ago(role.expires, now)) ")" }
                }
            }
        }
    }
}

fn mounts(admin: &Admin) -> Markup {
    html! {
        table {
            tr { th { "mount" } th { "path" } th { "front" } th { "repository" } th { "listing" } }
            @for mount in &admin.mounts {
                tr {
                    td { (mount.name) }
                    td { code { (mount.path) } }
                    td { (mount.front) }
                    td { (authority(&mount.trust)) }
                    td { @if mount.listing_signed { "signed" } @else { span class="dim" { "unauthenticated" } } }
                }
            }
        }
    }
}

/// What it holds, whether it takes more, and what the scrub finds.
fn cache(cache: &Cache, now: Timestamp) -> Markup {
    let (usage, scrub) = (cache.usage(), cache.scrubbing());
    html! {
        p {
            (usage.blobs) " file(s), " (usage.bytes) " of " (usage.capacity) " bytes"
            @if !usage.complete { span class="dim" { " · the folder is still being read" } }
            @if let Some(why) = cache.trouble() {
                br; span class="no" { "takes no files (" (why) "): answers are verified and pass through memory" }
            }
            br;
            @match scrub.completed {
                Some(at) => {
                    "all read again " (ago(at, now)) ": " (scrub.last.good) " good, "
                    span class=[(scrub.last.bad > 0).then_some("no")] { (scrub.last.bad) " bad" }
                },
                None => span class="dim" { "not all read again yet" },
            }
            @if scrub.running {
                span class="dim" { " · reading again: " (scrub.pass.good) " good, " (scrub.pass.bad) " bad so far" }
            }
        }
    }
}

/// The repository, or what the map asks of which, and what stands in its way.
fn authority(trust: &Trust) -> Markup {
    let Some(map) = trust.map() else {
        return html! { @for repository in trust.repositories() { (repository.name()) } };
    };
    let readiness = trust.readiness();
    html! {
        @for entry in map.entries() {
            @for pattern in &entry.paths { code { (pattern) } " " }
            ": " (entry.threshold) " of " (entry.repositories.join(", "))
            @if entry.terminating { span class="dim" { " · terminating" } }
            br;
        }
        @for remark in &readiness.remarks {
            span class=(if readiness.ready { "dim" } else { "no" }) { (remark) }
            br;
        }
    }
}

fn decisions(records: &[Record]) -> Markup {
    html! {
        @if records.is_empty() { p class="dim" { "nothing" } } @else {
            table {
                tr { th { "when" } th { "request" } th { "mount" } th { "what" } th { "verdict" } }
                @for record in records {
                    tr {
                        td { (record.time.round(Unit::Second).unwrap_or(record.time)) }
                        td { code { (record.request) } }
                        td { (record.mount) }
                        td { code { (record.target.as_deref().unwrap_or(&record.path)) } }
                        td class=(class(record.verdict)) {
                            (record.verdict.as_str()) ": " (record.detail)
                        }
                    }
                }
            }
        }
    }
}

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "ok",
        Verdict::Absent => "dim",
        Verdict::Refused | Verdict::Unavailable => "no",
    }
}

/// `in 3d 4h`, `12m ago`.
fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = then.duration_since(now).as_secs();
    let span = jiff::Span::new().seconds(seconds.abs());
    let rounding = SpanRound::new().largest(Unit::Day).smallest(Unit::Second).days_are_24_hours();
    let text = match span.round(rounding) {
        Ok(span) if span.get_days() > 0 => format!("{}d {}h", span.get_days(), span.get_hours()),
        Ok(span) if span.get_hours() > 0 => format!("{}h {}m", span.get_hours(), span.get_minutes()),
        Ok(span) if span.get_minutes() > 0 => format!("{}m {}s", span.get_minutes(), span.get_seconds()),
        _ => format!("{}s", seconds.abs()),
    };
    if seconds >= 0 { format!("in {text}") } else { format!("{text} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_a_person_says_them() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let at = |seconds: i64| ago(Timestamp::from_second(1_000_000_i64 + seconds).unwrap(), now);
        assert_eq!(at(86_400 * 3 + 3_600 * 4 + 5), "in 3d 4h");
        assert_eq!(at(-125), "2m 5s ago");
        assert_eq!(at(0), "in 0s");
    }
}
