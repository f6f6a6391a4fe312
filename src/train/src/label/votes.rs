//! Counts the votes of teachers for the class of each pixel.
//!
//! A view of an image casts one vote for each of its pixels, multiplied by the weight of the teacher and of the class. A mask
//! gives the whole vote of a pixel to one class, or, with a confidence, that share of it. Probabilities divide the vote among
//! the classes: a teacher that divides its vote between `car` and `bus`, both mapped to `vehicle`, gives `vehicle` the sum. The share of a class is that of all
//! votes that were cast for the pixel; votes of teachers that abstain there are not cast.

use super::views::View;
use crate::components::Components;
use crate::data::VOID;
use crate::size::Size;

/// The slots of a vote: the classes of the data set, then void, then abstention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// The number of classes.
    pub classes: usize,
}

impl Slots {
    /// The slot of votes for no class of the data set.
    pub fn void(self) -> usize {
        self.classes
    }

    /// The slot of votes that are not cast.
    pub fn abstain(self) -> usize {
        self.classes + 1
    }

    pub fn count(self) -> usize {
        self.classes + 2
    }
}

/// What a teacher says about the pixels of a view, in slots.
#[derive(Clone, Copy, Debug)]
pub enum Ballot<'a> {
    /// The slot of each pixel, and the probability that it is right.
    Mask { slots: &'a [u8], confidence: Option<&'a [f32]> },
    /// The probability of each slot, `[slots, height, width]`.
    Probabilities(&'a [f32]),
}

/// The votes for the pixels of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Votes {
    slots: Slots,
    image: Size,
    /// By class and void, `[classes + 1, height, width]`.
    sums: Vec<f32>,
    /// All votes of a pixel, including those for no class.
    cast: Vec<f32>,
}

/// The class with the most votes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Winner {
    pub slot: usize,
    /// Its share of the votes, 0 to 1.
    pub share: f32,
}

/// The tolerance for sums of rounded numbers.
const ROUNDING: f32 = 1e-4;

impl Votes {
    /// No votes.
    pub fn new(slots: Slots, image: Size) -> Self {
        let pixels = image.area();
        Votes { slots, image, sums: vec![0.0; (slots.classes + 1) * pixels], cast: vec![0.0; pixels] }
    }

    /// Adds the vote of a view. `weights` are those of the slots of the teacher.
    pub fn add(&mut self, view: &View, ballot: Ballot<'_>, weights: &[f32]) {
        let (pixels, area, abstain) = (self.image.area(), view.width * view.height, self.slots.abstain());
        for row in view.rows(self.image) {
            for step in 0..row.length {
                let (at, seen) = (row.image + step, row.view + step);
                match ballot {
                    Ballot::Mask { slots, confidence } => {
                        let slot = usize::from(slots[seen]);
                        if slot != abstain {
                            let share = confidence.map_or(1.0, |confidence| confidence[seen]);
                            self.sums[slot * pixels + at] += weights[slot] * share;
                            self.cast[at] += weights[slot];
                        }
                    }
                    Ballot::Probabilities(planes) => {
                        let of = |slot: usize| planes[slot * area + seen];
                        let best = (1..=abstain).fold(0, |best, slot| if of(slot) > of(best) { slot } else { best });
                        if best != abstain {
                            for slot in 0..abstain {
                                self.sums[slot * pixels + at] += weights[best] * of(slot);
                            }
                            self.cast[at] += weights[best];
                        }
                    }
                }
            }
        }
    }

    /// Adds the votes of another teacher for the same image.
    pub fn merge(&mut self, other: &Votes) {
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, more)| *sum += more);
        self.cast.iter_mut().zip(&other.cast).for_each(|(sum, more)| *sum += more);
    }

    /// The class with the most votes for a pixel; `None` without votes, or if two have the same number.
    pub fn winner(&self, pixel: usize) -> Option<Winner> {
        let (pixels, cast) = (self.image.area(), self.cast[pixel]);
        if cast <= 0.0 {
            return None;
        }
        let of = |slot: usize| self.sums[slot * pixels + pixel];
        let slot = (1..=self.slots.void()).fold(0, |best, slot| if of(slot) > of(best) { slot } else { best });
        let tie = (0..=self.slots.void()).any(|other| other != slot && of(other) + ROUNDING * cast >= of(slot));
        (!tie).then(|| Winner { slot, share: of(slot) / cast })
    }

    /// The class of a pixel whose share is at least `agree`.
    pub fn decided(&self, pixel: usize, agree: f32) -> Option<u8> {
        let winner = self.winner(pixel)?;
        let decided = winner.slot != self.slots.void() && winner.share + ROUNDING >= agree;
        decided.then_some(winner.slot as u8)
    }
}

/// The decisions of a teacher about the classes that it decides.
pub struct Decisions<'a> {
    pub votes: &'a Votes,
    /// By class.
    pub decides: &'a [bool],
}

/// The mask that all votes result in. A pixel is [`VOID`] if no class has the share `agree` of its votes.
///
/// A teacher that decides a class alone does so in both directions: where it votes for the class (with the share `agree` of its
/// own votes), the pixel has the class whatever others vote; where it does not, the class of the others is void.
pub fn decide(all: &Votes, deciders: &[Decisions<'_>], agree: f32) -> Vec<u8> {
    let mut mask = Vec::with_capacity(all.image.area());
    for pixel in 0..all.image.area() {
        let owners = deciders.iter().filter_map(|decider| {
            decider.votes.decided(pixel, agree).filter(|&class| decider.decides[usize::from(class)])
        });
        let mut owned = None;
        let mut conflict = false;
        for class in owners {
            conflict |= owned.is_some_and(|other| other != class);
            owned = Some(class);
        }
        let class = match owned {
            Some(_) if conflict => VOID,
            Some(class) => class,
            None => {
                let reserved = |class: &u8| deciders.iter().any(|decider| decider.decides[usize::from(*class)]);
                all.decided(pixel, agree).filter(|class| !reserved(class)).unwrap_or(VOID)
            }
        };
        mask.push(class);
    }
    mask
}

/// Makes connected areas of a class void that have fewer than `least` pixels.
pub fn remove_specks(mask: &mut [u8], width: usize, least: usize) {
    if least <= 1 {
        return;
    }
    let components = Components::of(mask, width);
    for (label, &component) in mask.iter_mut().zip(&components.of_pixel) {
        if components.list[component as usize].area < least {
            *label = VOID;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: Slots = Slots { classes: 2 };
    const VOID_SLOT: u8 = 2;
    const ABSTAIN: u8 = 3;

    fn view(width: usize) -> View {
        View { left: 0, top: 0, width, height: 1, mirrored: false }
    }

    /// The votes for an image of one row. Each ballot is a mask of slots with the weight of its teacher.
    fn votes(ballots: &[(&[u8], f32)]) -> Votes {
        let width = ballots[0].0.len();
        let mut votes = Votes::new(SLOTS, Size::new(width, 1));
        for (slots, weight) in ballots {
            votes.add(&view(width), Ballot::Mask { slots, confidence: None }, &[*weight; 4]);
        }
        votes
    }

    fn mask(ballots: &[(&[u8], f32)], agree: f32) -> Vec<u8> {
        decide(&votes(ballots), &[], agree)
    }

    #[test]
    fn a_class_needs_its_share_of_the_votes() {
        let three: [(&[u8], f32); 3] = [(&[0, 0, 1], 1.0), (&[0, 0, 1], 1.0), (&[0, 1, VOID_SLOT], 1.0)];
        assert_eq!(mask(&three, 0.7), [0, VOID, VOID]);
        assert_eq!(mask(&three, 2.0 / 3.0), [0, 0, 1], "exactly the share");
        assert_eq!(mask(&[(&[0], 1.0), (&[1], 1.0)], 0.3), [VOID], "equal votes");
        assert_eq!(mask(&[(&[0], 3.0), (&[1], 1.0)], 0.7), [0], "weights of teachers");
        assert_eq!(mask(&[(&[VOID_SLOT], 1.0)], 0.1), [VOID]);
    }

    #[test]
    fn abstentions_are_not_cast() {
        assert_eq!(mask(&[(&[0, ABSTAIN], 1.0), (&[ABSTAIN, ABSTAIN], 5.0)], 1.0), [0, VOID]);
    }

    #[test]
    fn a_confidence_is_a_share_of_the_vote() {
        let mut votes = Votes::new(SLOTS, Size::new(2, 1));
        votes.add(&view(2), Ballot::Mask { slots: &[1, 1], confidence: Some(&[0.9, 0.6]) }, &[1.0; 4]);
        assert_eq!(decide(&votes, &[], 0.7), [1, VOID]);
        assert_eq!(votes.winner(1), Some(Winner { slot: 1, share: 0.6 }));
    }

    #[test]
    fn probabilities_are_divided_and_weighted_by_the_largest() {
        let mut votes = Votes::new(SLOTS, Size::new(3, 1));
        // Three pixels: class 1; hesitation; mostly abstention.
        let planes = [0.1, 0.5, 0.2, 0.8, 0.4, 0.0, 0.1, 0.0, 0.0, 0.0, 0.1, 0.8];
        votes.add(&view(3), Ballot::Probabilities(&planes), &[1.0, 2.0, 1.0, 1.0]);
        assert_eq!(votes.cast, [2.0, 1.0, 0.0]);
        let expected = [[0.2, 0.5, 0.0], [1.6, 0.4, 0.0], [0.2, 0.0, 0.0]].concat();
        assert!(votes.sums.iter().zip(&expected).all(|(a, b): (&f32, &f32)| (a - b).abs() < 1e-6), "{:?}", votes.sums);
        assert_eq!(decide(&votes, &[], 0.7), [1, VOID, VOID]);
        assert_eq!(decide(&votes, &[], 0.5), [1, 0, VOID]);
    }

    #[test]
    fn views_vote_for_their_pixels_only() {
        let mut votes = Votes::new(SLOTS, Size::new(3, 2));
        let tile = |left| View { left, top: 1, width: 2, height: 2, mirrored: false };
        votes.add(&tile(-1), Ballot::Mask { slots: &[1, 0, 1, 1], confidence: None }, &[1.0; 4]);
        votes.add(&tile(2), Ballot::Mask { slots: &[1, 0, 0, 0], confidence: None }, &[1.0; 4]);
        assert_eq!(decide(&votes, &[], 1.0), [VOID, VOID, VOID, 0, VOID, 1]);
    }

    #[test]
    fn a_decider_decides_in_both_directions() {
        // The decider of class 1 abstains elsewhere. The other teacher votes against it, and sees class 1 where it does not.
        let decider = votes(&[(&[1, ABSTAIN, ABSTAIN, 0], 1.0)]);
        let other = votes(&[(&[0, 1, 0, 1], 5.0)]);
        let mut all = decider.clone();
        all.merge(&other);
        let decisions = |votes| Decisions { votes, decides: &[false, true] };
        assert_eq!(decide(&all, &[], 0.7), [0, 1, 0, 1]);
        assert_eq!(decide(&all, &[decisions(&decider)], 0.7), [1, VOID, 0, VOID]);
        // Two deciders of different classes contradict each other in the first pixel.
        let second = Decisions { votes: &other, decides: &[true, false] };
        assert_eq!(decide(&all, &[decisions(&decider), second], 0.7), [VOID, VOID, 0, VOID]);
    }

    #[test]
    fn small_areas_become_void() {
        let mut mask = vec![0, 0, 0, 1, 0, 0, 0, 1, 1, VOID, 0, 0];
        remove_specks(&mut mask, 4, 3);
        assert_eq!(mask, [0, 0, 0, VOID, 0, 0, 0, VOID, VOID, VOID, 0, 0]);
        let before = mask.clone();
        remove_specks(&mut mask, 4, 1);
        assert_eq!(mask, before);
    }
}
