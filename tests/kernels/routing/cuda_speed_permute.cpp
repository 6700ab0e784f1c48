// How fast router, sorting and the moving of rows run on a card, at sizes of training. Prints one
// table.
#include <fmt/core.h>

#include <random>

#include "kernels/host_copy.hpp"
#include "kernels/routing/balance.hpp"
#include "kernels/routing/permute.hpp"
#include "kernels/routing/score.hpp"
#include "kernels/routing/select.hpp"
#include "kernels/routing/weigh.hpp"
#include "tensor/cuda/cuda_device.hpp"
#include "tests/support/card_timer.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t tokens = 32768, hidden = 2048, sequence_length = 4096;

class Bench {
 public:
  Bench() : device_(make_cuda_device(0)), timer_(*device_) {}

  void run() {
    for (const auto& [experts, top_k] : {std::pair<std::int64_t, std::int64_t>{64, 8}, {32, 4}}) {
      const Tensor indices = random_choices(experts, top_k);
      router(experts, top_k);
      const Tensor row_of_slot = tensor(DType::i32, {tokens, top_k});
      const Tensor token_of_row = tensor(DType::i32, {tokens * top_k});
      sort(indices, experts, row_of_slot, token_of_row);
      rows(experts, row_of_slot, token_of_row);
    }
  }

 private:
  Tensor tensor(DType dtype, Shape shape) {
    return Tensor(*device_, Purpose::workspace, dtype, shape);
  }
  static double bytes(const TensorView& view) { return static_cast<double>(view.num_bytes()); }
  static std::string size_of(std::int64_t experts, std::int64_t top_k) {
    return fmt::format("{} x {}, top {}", tokens, experts, top_k);
  }
  // Of short kernels: many in a row, so that the time to launch one is not what is measured.
  template <class Run>
  void time_many(std::string_view operation, std::string_view size, double bytes, Run run) const {
    constexpr int times = 20;
    timer_.time(fmt::format("{} x {}", times, operation), size, times * bytes, [&] {
      for (int i = 0; i < times; ++i) run();
    });
  }

  // Some experts are liked more than others, and a token's choices differ.
  Tensor random_choices(std::int64_t experts, std::int64_t top_k) {
    std::mt19937 generator(1);
    std::vector<std::int32_t> choices;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto begin = static_cast<std::ptrdiff_t>(choices.size());
      while (std::ssize(choices) < begin + top_k) {
        const double even = static_cast<double>(generator()) * 0x1p-32;
        const auto expert = static_cast<std::int32_t>(static_cast<double>(experts) *
                                                      (0.7 * even + 0.3 * even * even));
        if (std::find(choices.begin() + begin, choices.end(), expert) == choices.end())
          choices.push_back(expert);
      }
    }
    Tensor indices = tensor(DType::i32, {tokens, top_k});
    kernels::copy_from_host<std::int32_t>(choices, indices);
    return indices;
  }

  void router(std::int64_t experts, std::int64_t top_k) {
    std::mt19937 generator(2);
    std::vector<float> values(static_cast<std::size_t>(tokens * experts));
    for (float& value : values) value = static_cast<float>(generator()) * 0x1p-30f - 2;
    const Tensor logits = tensor(DType::f32, {tokens, experts});
    kernels::copy_from_host<float>(values, logits);
    const Tensor scores = tensor(DType::f32, {tokens, experts}), lse = tensor(DType::f32, {tokens});
    const Tensor indices = tensor(DType::i32, {tokens, top_k});
    const Tensor weights = tensor(DType::f32, {tokens, top_k});
    const Tensor slopes = tensor(DType::f32, {tokens / sequence_length, experts});
    const Tensor counts = tensor(DType::i32, {tokens / sequence_length, experts});
    const Tensor sums = tensor(DType::f32, {tokens / sequence_length, experts});
    const Tensor losses = tensor(DType::f64, {2});
    const std::string size = size_of(experts, top_k);
    time_many("score_softmax", size, 2 * bytes(logits),
              [&] { kernels::score_softmax(logits, scores, lse); });
    time_many("select_top_k", size, bytes(scores) + bytes(indices),
              [&] { kernels::select_top_k(scores, indices); });
    time_many("weigh", size, 3 * bytes(weights),
              [&] { kernels::weigh(scores, indices, {true}, weights); });
    time_many("balance_statistics", size, bytes(scores) + bytes(indices),
              [&] { kernels::balance_statistics(scores, indices, sequence_length, counts, sums); });
    time_many("add_auxiliary_losses", size, bytes(lse), [&] {
      kernels::add_auxiliary_losses(counts, sums, lse,
                                    {.top_k = top_k, .sequence_length = sequence_length}, losses);
    });
    time_many("weigh_backward", size, 4 * bytes(weights),
              [&] { kernels::weigh_backward(weights, scores, indices, {true}, weights); });
    time_many("score_softmax_backward", size, 2 * bytes(scores), [&] {
      kernels::score_softmax_backward(weights, indices, slopes, 0.1f, scores, lse, logits);
    });
  }

  void sort(const TensorView& indices, std::int64_t experts, const TensorView& row_of_slot,
            const TensorView& token_of_row) {
    const Tensor counts = tensor(DType::i32, {experts});
    time_many("sort_by_expert", size_of(experts, indices.cols()), 4 * bytes(indices),
              [&] { kernels::sort_by_expert(indices, {}, counts, row_of_slot, token_of_row); });
  }

  void rows(std::int64_t experts, const TensorView& row_of_slot, const TensorView& token_of_row) {
    const std::int64_t top_k = row_of_slot.cols();
    const Tensor x = tensor(DType::bf16, {tokens, hidden}),
                 out = tensor(DType::bf16, {tokens, hidden});
    const Tensor sorted = tensor(DType::bf16, {tokens * top_k, hidden});
    const Tensor gradient = tensor(DType::bf16, {tokens * top_k, hidden});
    const Tensor weights = tensor(DType::f32, {tokens, top_k}),
                 dweights = tensor(DType::f32, {tokens, top_k});
    const std::string size = size_of(experts, top_k);
    timer_.time("gather_rows", size, 2 * bytes(sorted),
                [&] { kernels::gather_rows(x, token_of_row, sorted); });
    timer_.time("combine_rows", size, bytes(sorted) + bytes(out),
                [&] { kernels::combine_rows(sorted, row_of_slot, weights, out); });
    timer_.time("combine_rows_backward", size, bytes(x) + 2 * bytes(sorted), [&] {
      kernels::combine_rows_backward(x, sorted, row_of_slot, weights, gradient, dweights);
    });
    timer_.time("sum_rows", size, bytes(sorted) + bytes(out),
                [&] { kernels::sum_rows(sorted, row_of_slot, out); });
    timer_.time("scatter_rows", size, 2 * bytes(sorted),
                [&] { kernels::scatter_rows(sorted, row_of_slot.flat(), gradient); });
  }

  std::unique_ptr<Device> device_;
  CardTimer timer_;
};

}  // namespace
}  // namespace switchyard::test

int main() {
  using namespace switchyard;
  if (num_cuda_cards() == 0) {
    fmt::print("no GPU: nothing was timed\n");
    return test::no_such_device;
  }
  test::Bench().run();
  return 0;
}
