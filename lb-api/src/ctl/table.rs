//! Columns for people.

/// How wide the columns of what was written are, for rows that come below.
#[derive(Default)]
pub(super) struct Widths(Vec<usize>);

/// Rows under a heading, each column as wide as its widest cell.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    table_below(&mut Widths::default(), heading, rows)
}

/// The same, with columns at least as wide as those above.
pub(super) fn table_below<const N: usize>(
    above: &mut Widths,
    heading: [&str; N],
    rows: &[[String; N]],
) -> String {
    lines(above, &heading, rows)
}

/// The same of as many columns as there happen to be.
pub(super) fn columns(heading: &[&str], rows: &[Vec<String>]) -> String {
    lines(&mut Widths::default(), heading, rows)
}

fn lines(above: &mut Widths, heading: &[&str], rows: &[impl AsRef<[String]>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|name| name.len()).collect();
    for (width, above) in widths.iter_mut().zip(&above.0) {
        *width = (*width).max(*above);
    }
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(widths.iter().copied()) {
            text.push_str(&format!("{cell:width$}  "));
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(&mut heading.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.as_ref().iter().map(String::as_str)));
    }
    above.0 = widths;
    text
}

/// Seconds as people say them: `42s`, `3m07s`, `5h12m`, `9d04h`.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A list of nothing has a dash.
pub(super) fn or_dash(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = table(["A", "NAME"], &[["long".into(), "x".into()], ["y".into(), "".into()]]);
        assert_eq!(text, "A     NAME\nlong  x\ny\n");
    }

    #[test]
    fn rows_that_come_later_stand_below_those_that_were_there() {
        let mut widths = Widths::default();
        table_below(&mut widths, ["A", "B"], &[["long".into(), "x".into()]]);
        let text = table_below(&mut widths, ["A", "B"], &[["y".into(), "z".into()]]);
        assert_eq!(text, "A     B\ny     z\n");
    }

    #[test]
    fn durations_are_short() {
        let said = [5, 67, 3720, 90_000].map(duration);
        assert_eq!(said, ["5s", "1m07s", "1h02m", "1d01h"]);
    }
}
