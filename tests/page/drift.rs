//! The panel about the camera: it says that the camera has changed, with what it looked like before and looks like now.

use super::common::clip::{Patch, RED, flag, paint_scene};
use super::common::service::folder;
use super::page_test::PageTest;

/// Frames of the clip, and the first one after the lamp was switched off.
const FRAMES: usize = 3000;
const OFF: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_that_the_camera_has_changed_until_an_operator_accepts_it() {
    let folder = folder();
    let (width, height) = (320, 180);
    let mut patches: Vec<_> = flag(width, height).iter().map(|patch| (*patch, 0..OFF)).collect();
    let lamp = Patch { left: 0, top: 0, width: 60, height: 60, color: RED };
    patches.push((lamp, OFF..FRAMES));
    tokio::task::block_in_place(|| {
        paint_scene(&folder.path().join("yard.mp4"), (width, height), 25, FRAMES, "black", &patches);
    });
    let test = PageTest::open_in(
        folder,
        "[[stream]]\nname = \"yard\"\nsource = \"yard.mp4\"\nloop = false\n\
         drift = { window = \"3s\", settle = \"6s\" }\n\
         [[stream]]\nname = \"endless\"\nsource = \"test://ball?width=160&height=90&fps=5\"\n",
    )
    .await;
    test.go("#/yard").await;
    let settled = "const text = document.getElementById('drift-text').textContent;
        return !document.getElementById('drift').hidden && /looks as before|being learnt/.test(text);";
    test.until("the panel of the camera", settled).await;
    let changed = "const text = document.getElementById('drift-text').textContent;
        return text.startsWith('This camera has changed since ') && text.includes('darker') && text;";
    test.until("the camera has changed", changed).await;
    let bars = "return [...document.querySelectorAll('#drift-bars tbody tr')]
        .find((row) => row.textContent.startsWith('Brightness')).querySelectorAll('.drift-bar').length;";
    assert_eq!(test.run(bars).await, 2);
    test.axe("the panel of the camera").await;
    test.click("#drift-accept").await;
    let accepted = "return document.getElementById('drift-text').textContent.startsWith('This camera looks as before')
        && document.getElementById('drift-accept').hidden;";
    test.until("the change is accepted", accepted).await;
}
