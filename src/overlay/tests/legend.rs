//! The legend in the drawn frame.

use super::*;

#[test]
fn the_legend_changes_its_own_area_only() {
    let source = source(VideoInfo::new(PixelFormat::Nv12, 640, 360), 0);
    let before = samples(&source);
    let after = samples(&drawn(&mut overlay(Style::Tint, 0.45, true), &source, None, 0));
    let changed: Vec<(usize, usize)> =
        (0..640 * 360).filter(|&n| before[0][n] != after[0][n]).map(|n| (n % 640, n / 640)).collect();
    assert!(changed.len() > 500, "{}", changed.len());
    assert!(changed.iter().all(|&(x, y)| x < 120 && y > 280));
    let chroma = (0..320 * 180).filter(|&n| (before[1][n], before[2][n]) != (after[1][n], after[2][n]));
    assert!(chroma.clone().count() > 100);
    assert!(chroma.into_iter().all(|n| n % 320 < 60 && n / 320 > 140));
}

#[test]
fn the_legend_follows_a_change_of_the_frame_size() {
    let mut changing = overlay(Style::Tint, 0.45, true);
    for (width, height) in [(640, 360), (961, 541), (100, 50), (640, 360)] {
        let source = source(VideoInfo::new(PixelFormat::I420, width, height), 0);
        let fresh = drawn(&mut overlay(Style::Tint, 0.45, true), &source, None, 0);
        assert_eq!(samples(&drawn(&mut changing, &source, None, 0)), samples(&fresh), "{width}x{height}");
    }
}
