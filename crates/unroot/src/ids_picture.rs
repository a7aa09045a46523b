//! The id space as a drawing: a bar for each range on a scale of powers of two.

use std::fmt::Write as _;

use unroot_idmap::space::Space;

use crate::verbs::ids::rows;

/// One self-contained SVG document.
pub fn svg(space: &Space) -> String {
    let rows = rows(space);
    let height = 52 + rows.iter().map(|r| 34 + 14 * r.held.len().min(4)).sum::<usize>();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height}\" font-family=\"sans-serif\" font-size=\"12\">\
         <title>ids of this host</title><rect width=\"760\" height=\"{height}\" fill=\"#fff\"/>\
         <text x=\"10\" y=\"20\" font-size=\"15\">ids of this host: room for {} more users of 65536 ids</text>",
        space.fit
    );
    let place = |id: u64| 10.0 + ((id.max(256) as f64).log2() - 8.0) / 24.0 * 360.0;
    let mut y = 34;
    for row in &rows {
        let colour = match (row.is_bad, row.what.contains("subordinate"), row.first) {
            (true, ..) => "#c0262d",
            (_, true, _) => "#17803d",
            (_, _, 0) => "#a15c00",
            _ => "#4466aa",
        };
        let (from, to) = (place(row.first), place(row.end));
        let _ = write!(
            out,
            "<rect x=\"10\" y=\"{y}\" width=\"360\" height=\"16\" fill=\"#eef\"/>\
             <rect x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\"/>\
             <text x=\"380\" y=\"{}\">{}–{} {}</text>",
            (to - from).max(2.0),
            y + 12,
            row.first,
            row.end - 1,
            escape(&row.what)
        );
        y += 28;
        for held in row.held.iter().take(4) {
            let _ = write!(out, "<text x=\"396\" y=\"{y}\" fill=\"#667\">{}</text>", escape(held));
            y += 14;
        }
        y += 6;
    }
    out + "</svg>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
