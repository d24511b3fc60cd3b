use super::*;
use crate::limits;

fn report(misses: &[&str]) -> Report {
    let mut report = Report::new("sample", "A <sample>", 10, &["exit s", "lost"], &[&limits::EXIT]);
    report.add(Row {
        name: "a & b".to_owned(),
        cells: vec!["5.0".to_owned(), "0".to_owned()],
        misses: misses.iter().map(|&miss| miss.to_owned()).collect(),
        point: Some((5.0, 8.0)),
        detail: json!({ "n": 1 }),
        ..Row::default()
    });
    report.add(Row { name: "not measured".to_owned(), point: Some((f64::NAN, 8.0)), ..Row::default() });
    report
}

#[test]
fn what_could_not_be_measured_is_no_pass() {
    let row = |misses: &[&str], unknown| Row {
        misses: misses.iter().map(|&miss| miss.to_owned()).collect(),
        unknown,
        ..Row::default()
    };
    let rows = [row(&[], false), row(&["late"], false), row(&["no answer"], true)];
    assert_eq!(rows.each_ref().map(Row::verdict), ["pass", "fail", "unknown"]);
    let mut report = report(&[]);
    rows.into_iter().skip(2).for_each(|row| report.add(row));
    assert!(!report.passes() && report.to_json()["rows"][2]["verdict"] == "unknown");
}

const BARS: Plot = Plot::Bars { title: "Exit", unit: "s" };
const DOTS: Plot = Plot::Dots { title: "Exit", unit: "s" };

#[test]
fn a_report_passes_only_without_a_miss_and_says_so_in_both_files() {
    let folder = std::env::temp_dir().join(format!("drill-report-{}", std::process::id()));
    for (misses, plot) in [(&[][..], BARS), (&["exit: 9 s"][..], DOTS)] {
        let passes = report(misses).finish(&folder, plot).unwrap();
        assert_eq!(passes, misses.is_empty());
        let json: Value = serde_json::from_slice(&fs::read(folder.join("sample.json")).unwrap()).unwrap();
        assert_eq!(json["passes"], passes);
        assert_eq!(json["rows"][0]["cells"]["exit s"], "5.0");
        let page = fs::read_to_string(folder.join("sample.html")).unwrap();
        assert_eq!(page.contains("A limit was missed"), !passes);
        assert_eq!(page.contains("exit: 9 s"), !passes);
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_report_of_nothing_is_no_pass() {
    let nothing = Report::new("nothing", "Nothing", 10, &[], &[]);
    assert!(nothing.finish(&std::env::temp_dir(), BARS).is_err());
}

#[test]
fn the_page_escapes_names_and_loads_nothing() {
    for plot in [BARS, DOTS] {
        let page = page::html(&report(&[]), plot);
        assert!(page.contains("A &lt;sample&gt;") && page.contains("a &amp; b"));
        for foreign in ["http:", "https:", "src=", "href=", "NaN", "inf"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
