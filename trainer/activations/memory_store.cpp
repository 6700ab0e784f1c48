#include "trainer/activations/memory_store.hpp"

#include "kernels/host_copy.hpp"

namespace switchyard {

namespace {

// Plain copies by the one thread, which no kernel of several threads may be.
void start_copy(CopyThread& thread, std::int64_t layer, const TensorView& from,
                const TensorView& to) {
  if (from.device->is_plan() || from.numel() == 0) return;
  thread.start(layer, [from, to] {
    if (to.device->is_host_memory())
      kernels::copy_bytes_to_host(from, to.host_bytes());
    else
      kernels::copy_bytes_from_host(from.host_bytes(), to);
  });
}

}  // namespace

void MemoryStore::prepare(std::int64_t layer, std::span<const RecordTensor> record,
                          RowCapacity& capacity) {
  for (const RecordTensor& part : record) {
    const TensorView& view = part.tensor->view();
    Tensor& tensor = tensors_[layer][part.name];
    if (part.follows_rows) {
      tensor = Tensor::growable(device_.host(), Purpose::spilled, view.dtype,
                                view.shape.with_dim0(part.tensor->max_rows()));
      capacity.add(tensor);
    } else {
      tensor = Tensor(device_.host(), Purpose::spilled, view.dtype, view.shape);
    }
  }
}

TensorView MemoryStore::place_of(std::int64_t layer, const RecordTensor& part) const {
  return tensors_.at(layer).at(part.name)->slice_rows(0, part.num_rows);
}

void MemoryStore::start_write(std::int64_t layer, std::span<const RecordTensor> record) {
  for (const RecordTensor& part : record) {
    bytes_written_ += static_cast<double>(part.used().num_bytes());
    start_copy(copies_, layer, part.used(), place_of(layer, part));
  }
}

void MemoryStore::start_read(std::int64_t layer, std::span<const RecordTensor> record) {
  for (const RecordTensor& part : record) {
    bytes_read_ += static_cast<double>(part.used().num_bytes());
    start_copy(copies_, layer, place_of(layer, part), part.used());
  }
}

ActivationStore::Statistics MemoryStore::statistics() const {
  return {bytes_written_, bytes_read_, copies_.busy_seconds()};
}

}  // namespace switchyard
