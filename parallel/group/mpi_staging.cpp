#include "parallel/group/mpi_staging.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "kernels/host_copy.hpp"
#include "tensor/error.hpp"

namespace switchyard::mpi {

namespace {

bool is_staged(const TensorView& view) {
  return !view.empty() && view.device->has_own_memory();
}

}  // namespace

class Staging::Exchange final : public Event::Pending {
 public:
  Exchange(Event exchange, Staging staging)
      : staging_(std::move(staging)), exchange_(std::move(exchange)) {}

  bool test() override {
    if (!exchange_.test()) return false;
    copy_back();
    return true;
  }
  void wait_host() override {
    exchange_.wait_host();
    copy_back();
  }

 private:
  void copy_back() const {
    for (const Back& back : staging_.back_)
      kernels::copy_bytes_from_host(back.from.host_bytes(), back.to);
  }

  Staging staging_;
  Event exchange_;  // dies first: it may still write to the buffers
};

TensorView Staging::buffer_for(const TensorView& view, bool is_read) {
  expect(view.is_contiguous(), "a contiguous tensor to exchange");
  const Tensor& buffer =
      buffers_.emplace_back(view.device->host(), Purpose::communication, view.dtype, view.shape);
  if (is_read) kernels::copy_bytes_to_host(view, buffer->host_bytes());
  return buffer;
}

TensorView Staging::of(const TensorView& view, Use use) {
  if (!is_staged(view)) return view;
  const TensorView buffer = buffer_for(view, use == Use::read || use == Use::read_and_write);
  if (use == Use::write || use == Use::read_and_write) back_.push_back({buffer, view});
  return buffer;
}

TensorView Staging::of_part_written(const TensorView& view, std::int64_t begin, std::int64_t end) {
  if (!is_staged(view)) return view;
  const TensorView buffer = buffer_for(view, true);
  back_.push_back({buffer.flat().slice_rows(begin, end), view.flat().slice_rows(begin, end)});
  return buffer;
}

TensorView Staging::of_rows_written(const TensorView& view, const RankRows& rows) {
  if (!is_staged(view)) return view;
  const TensorView buffer = buffer_for(view, false);
  std::vector<std::pair<std::int64_t, std::int64_t>> runs;
  for (std::size_t i = 0; i < rows.count.size(); ++i)
    if (rows.count[i] > 0) runs.emplace_back(rows.first[i], rows.first[i] + rows.count[i]);
  std::ranges::sort(runs);
  for (std::size_t i = 0; i < runs.size();) {
    const std::int64_t begin = runs[i].first;
    std::int64_t end = begin;  // of runs that lie side by side
    while (i < runs.size() && runs[i].first == end) end = runs[i++].second;
    back_.push_back({buffer.slice_rows(begin, end), view.slice_rows(begin, end)});
  }
  return buffer;
}

Event Staging::then_back(Event exchange) {
  if (buffers_.empty()) return exchange;
  return Event(std::make_unique<Exchange>(std::move(exchange), std::move(*this)));
}

}  // namespace switchyard::mpi
