//! The pictures of a report: an image, its label, the masks of both models and their difference, as `data:` URLs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::score::VOID;
use crate::frame::{Mask, Rgb};

/// The largest width of a picture in pixels.
pub const WIDTH: usize = 480;

/// Colours of the difference: neither model is right, the new one only, the old one only.
pub const NEITHER: Rgb = Rgb(222, 168, 40);
pub const GAINED: Rgb = Rgb(26, 160, 96);
pub const LOST: Rgb = Rgb(226, 48, 58);

/// Void, and what has no class, in the pictures of classes.
pub const NO_CLASS: Rgb = Rgb(70, 70, 70);

/// Opacity of the difference on the image, of 255.
const DIFFERENCE_ALPHA: u8 = 190;

/// The pictures of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Panels {
    pub width: usize,
    pub height: usize,
    pub image: String,
    pub label: String,
    pub old: String,
    pub new: String,
    /// Transparent where both models are right, to be drawn on the image.
    pub difference: String,
}

/// An image in RGB with its label and both masks, at the size of the pictures, `[height × width]`.
pub struct Compared<'a> {
    pub width: usize,
    pub height: usize,
    /// `[height × width × 3]`
    pub rgb: &'a [u8],
    pub label: &'a [u8],
    pub old: &'a [u8],
    pub new: &'a [u8],
}

/// The size of the pictures of an image.
pub fn size(width: usize, height: usize) -> (usize, usize) {
    let small = width.min(WIDTH);
    (small, (height * small).div_ceil(width.max(1)).max(1))
}

/// Scales values of pixels with nearest neighbour, as masks are scaled.
pub fn scaled(values: &[u8], (width, height): (usize, usize), to: (usize, usize)) -> Vec<u8> {
    let columns: Vec<usize> = (0..to.0).map(|x| Mask::index(x, to.0, width)).collect();
    let rows = (0..to.1).map(|y| &values[Mask::index(y, to.1, height) * width..][..width]);
    rows.flat_map(|row| columns.iter().map(|&x| row[x])).collect()
}

impl Panels {
    /// Draws the pictures. `colors` are those of the classes.
    ///
    /// # Errors
    /// The PNG encoder fails.
    pub fn draw(compared: &Compared<'_>, colors: &[Rgb]) -> Result<Panels, png::EncodingError> {
        let size @ (width, height) = (compared.width, compared.height);
        let classes = |values: &[u8]| indexed(values, size, colors, &[]);
        let difference: Vec<u8> = compared
            .label
            .iter()
            .zip(compared.old.iter().zip(compared.new))
            .map(|(label, (old, new))| match (*label == VOID, old == label, new == label) {
                (true, ..) | (false, true, true) => 0,
                (false, false, false) => 1,
                (false, false, true) => 2,
                (false, true, false) => 3,
            })
            .collect();
        let opacity = [0, DIFFERENCE_ALPHA, DIFFERENCE_ALPHA, DIFFERENCE_ALPHA];
        Ok(Panels {
            width,
            height,
            image: encoded(compared.rgb, size, |encoder| encoder.set_color(png::ColorType::Rgb))?,
            label: classes(compared.label)?,
            old: classes(compared.old)?,
            new: classes(compared.new)?,
            difference: indexed(&difference, size, &[Rgb(0, 0, 0), NEITHER, GAINED, LOST], &opacity)?,
        })
    }
}

/// A PNG with a palette. Values without a colour are drawn as void.
fn indexed(values: &[u8], size: (usize, usize), colors: &[Rgb], opacity: &[u8]) -> Result<String, png::EncodingError> {
    let mut palette: Vec<u8> = colors.iter().flat_map(|&Rgb(r, g, b)| [r, g, b]).collect();
    let Rgb(r, g, b) = NO_CLASS;
    palette.extend([r, g, b].repeat(256_usize.saturating_sub(colors.len())));
    encoded(values, size, |encoder| {
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(palette);
        if !opacity.is_empty() {
            encoder.set_trns(opacity.to_vec());
        }
    })
}

fn encoded(
    data: &[u8],
    (width, height): (usize, usize),
    settings: impl FnOnce(&mut png::Encoder<'_, &mut Vec<u8>>),
) -> Result<String, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    settings(&mut encoder);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(data)?;
    writer.finish()?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_shows_what_only_one_model_gets_right() {
        let compared = Compared {
            width: 5,
            height: 1,
            rgb: &[128; 15],
            label: &[0, 0, 0, 0, VOID],
            old: &[0, 1, 1, 0, 1],
            new: &[0, 1, 0, 1, 0],
        };
        let panels = Panels::draw(&compared, &[Rgb(1, 2, 3), Rgb(4, 5, 6)]).unwrap();
        let bytes = STANDARD.decode(panels.difference.split_once(',').unwrap().1).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        assert_eq!(reader.info().trns.as_deref().unwrap()[0], 0);
        let mut values = vec![0; 5];
        reader.next_frame(&mut values).unwrap();
        assert_eq!(values, [0, 1, 2, 3, 0]);
        assert_eq!(size(1920, 1080), (480, 270));
        assert_eq!(scaled(&[1, 2, 3, 4], (4, 1), (2, 1)), [2, 4]);
    }
}
