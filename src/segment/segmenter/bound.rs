//! Runs of a session with its tensors in memory that is bound to it (ONNX Runtime's I/O binding,
//! <https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html>).
//!
//! A GPU copies from and to page-locked memory by DMA, without the intermediate copy that pageable memory needs, and the memory is
//! allocated once. Not measured yet.

use std::fmt::Debug;

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session, SessionOutputs};
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor, TensorRef};

use super::options::Options;
use crate::config::Provider;

/// Memory for tensors that both the CPU and the device of a session can access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TensorMemory {
    /// Ordinary memory. The device is the CPU.
    #[cfg_attr(not(test), expect(dead_code, reason = "the CPU copies nothing; tests bind memory without a GPU"))]
    Cpu,
    /// Page-locked memory of the CPU for the CUDA device with this number.
    CudaPinned(i32),
}

impl TensorMemory {
    /// The memory for the sessions of a provider; `None` if its runs copy nothing.
    pub fn of(provider: Provider, device: i32) -> Option<Self> {
        match provider {
            Provider::Cpu => None,
            // TensorRT's provider uses the allocators of CUDA.
            Provider::Cuda | Provider::TensorRt => Some(TensorMemory::CudaPinned(device)),
        }
    }

    fn info(self, kind: MemoryType) -> ort::Result<MemoryInfo<'static>> {
        let (device, number) = match self {
            TensorMemory::Cpu => (AllocationDevice::CPU, 0),
            TensorMemory::CudaPinned(number) => (AllocationDevice::CUDA_PINNED, number),
        };
        MemoryInfo::new(device, number, AllocatorType::Device, kind)
    }
}

/// The bound memory of a session. It is allocated at the first run, and again when the shape of the input or the set of outputs changes.
#[derive(Debug)]
pub(super) struct BoundRuns {
    memory: TensorMemory,
    current: Option<BoundTensors>,
}

#[derive(Debug)]
struct BoundTensors {
    binding: IoBinding,
    input: DynTensor,
    shape: [usize; 4],
    outputs: Vec<String>,
}

impl BoundRuns {
    pub fn new(memory: TensorMemory) -> Self {
        BoundRuns { memory, current: None }
    }

    /// The tensors for an input of this shape and these outputs.
    fn tensors<T: PrimitiveTensorElementType + Debug>(
        &mut self,
        session: &Session,
        shape: [usize; 4],
        outputs: &[String],
    ) -> ort::Result<&mut BoundTensors> {
        let bound = match self.current.take() {
            Some(bound) if bound.shape == shape && bound.outputs == outputs => bound,
            _ => {
                let allocator = Allocator::new(session, self.memory.info(MemoryType::CPUInput)?)?;
                let input = Tensor::<T>::new(&allocator, shape)?.upcast();
                let mut binding = session.create_binding()?;
                let memory = self.memory.info(MemoryType::CPUOutput)?;
                for output in outputs {
                    binding.bind_output_to_device(output, &memory)?;
                }
                BoundTensors { binding, input, shape, outputs: outputs.to_vec() }
            }
        };
        Ok(self.current.insert(bound))
    }
}

/// A run of a session with one input.
pub(super) struct TensorRun<'a> {
    pub session: &'a mut Session,
    /// `None`: ONNX Runtime copies the tensors of the run to the device, if it has memory of its own.
    pub bound: Option<&'a mut BoundRuns>,
    /// The name of the input.
    pub name: &'a str,
    pub shape: [usize; 4],
    pub options: &'a Options,
}

impl<'a> TensorRun<'a> {
    /// Runs the model on the values of its input.
    ///
    /// # Errors
    /// ONNX Runtime fails, or cannot allocate the memory.
    pub fn with<T: PrimitiveTensorElementType + Copy + Debug + 'static>(
        self,
        values: &[T],
    ) -> ort::Result<SessionOutputs<'a>> {
        let TensorRun { session, bound, name, shape, options } = self;
        let Some(bound) = bound else {
            let tensor = TensorRef::from_array_view((shape, values))?;
            return session.run_with_options(ort::inputs![name => tensor], &options.run);
        };
        let bound = bound.tensors::<T>(session, shape, &options.names)?;
        bound.input.try_extract_tensor_mut::<T>()?.1.copy_from_slice(values);
        bound.binding.bind_input(name, &bound.input)?;
        session.run_binding(&bound.binding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::segmenter::tests::segmenter;

    #[test]
    fn runs_with_bound_memory_have_the_same_masks() {
        let mut copied = segmenter(1);
        let mut bound = segmenter(1);
        bound.bound = Some(BoundRuns::new(TensorMemory::Cpu));
        let golden = copied.contract().golden.clone().unwrap();
        let grey = vec![128; golden.rgb.len()];
        let both = [&golden.rgb[..], &grey[..]].concat();
        // The same shape with other values, another shape, and the first shape again.
        for (rgb, n) in [(&golden.rgb, 1), (&grey, 1), (&both, 2), (&golden.rgb, 1)] {
            assert_eq!(bound.run_rgb(rgb, n).unwrap(), copied.run_rgb(rgb, n).unwrap(), "{n}");
        }
        // Other outputs.
        let (scored, expected) = (bound.run_scored(&golden.rgb).unwrap(), copied.run_scored(&golden.rgb).unwrap());
        assert_eq!(scored.scores, expected.scores);
        let (classes, _) = bound.run_rgb(&golden.rgb, 1).unwrap();
        assert_eq!(classes, copied.run_rgb(&golden.rgb, 1).unwrap().0);
    }

    #[test]
    fn memory_that_the_provider_does_not_have_is_not_bound() {
        // The library for CPUs has no page-locked memory of CUDA.
        let mut segmenter = segmenter(1);
        segmenter.bind_memory(Provider::Cuda, 0);
        assert!(segmenter.bound.is_none());
        let golden = segmenter.contract().golden.clone().unwrap();
        assert_eq!(segmenter.run_rgb(&golden.rgb, 1).unwrap().0.len(), golden.width * golden.height);
    }
}
