//! Classes: their indices in masks, their names and how they are drawn.

use std::sync::Arc;

use super::weight::Weight;

/// Index of a class in the labels of the model; the value of one mask pixel.
pub type ClassId = u8;

/// An RGB colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rgb(pub u8, pub u8, pub u8);

/// Name and appearance of a class; its index in the labels of the model is the [`ClassId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub name: String,
    pub color: Rgb,
    /// How strongly the class is drawn, unless the settings of a stream have another weight.
    pub weight: Weight,
}

impl Label {
    /// A class that is drawn with the whole opacity.
    pub fn new(name: impl Into<String>, color: Rgb) -> Self {
        Label { name: name.into(), color, weight: Weight::FULL }
    }
}

/// The labels of a model by class index; shared by all of its masks.
pub type Labels = Arc<[Label]>;
