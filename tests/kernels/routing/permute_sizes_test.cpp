// Sorting and moving rows at the sizes of training: many slots, few and many experts, even and
// skewed, dense and strided; against the definitions.
#include <algorithm>

#include "kernels/kernel_test.hpp"
#include "kernels/routing/permute.hpp"

namespace switchyard::test {
namespace {

using Ints = std::vector<std::int32_t>;

enum class Skew { even, steep, one, none };

// Choices of `num_slots` slots; a seventh of them dropped where `drops`.
Ints random_choices(std::int64_t num_slots, std::int32_t experts, Skew skew, bool drops) {
  std::mt19937 generator(static_cast<unsigned>(num_slots + experts));
  Ints choices(static_cast<std::size_t>(num_slots));
  for (std::int32_t& choice : choices) {
    const auto number = static_cast<std::int32_t>(generator() % static_cast<unsigned>(experts));
    const unsigned dice = generator() % 1024;
    choice = skew == Skew::none                ? -1
             : skew == Skew::one               ? experts - 1
             : skew == Skew::steep && dice > 9 ? number / 7 % 2
                                               : number;
    if (drops && dice % 7 == 0) choice = -1;
  }
  return choices;
}

struct Sorted {
  Ints counts, row_of_slot, token_of_row;
};

// The definition: slots ordered by (place, slot).
Sorted sorted(const Ints& choices, const Ints& places, std::int64_t num_places, std::int64_t k) {
  Sorted result{Ints(static_cast<std::size_t>(num_places)), Ints(choices.size(), -1),
                Ints(choices.size(), -1)};
  std::vector<Ints> slots(static_cast<std::size_t>(num_places));
  for (std::size_t slot = 0; slot < choices.size(); ++slot) {
    if (choices[slot] < 0) continue;
    const auto expert = static_cast<std::size_t>(choices[slot]);
    const std::int32_t place = places.empty() ? choices[slot] : places[expert];
    slots[static_cast<std::size_t>(place)].push_back(static_cast<std::int32_t>(slot));
  }
  std::size_t row = 0;
  for (std::size_t p = 0; p < slots.size(); ++p) {
    result.counts[p] = static_cast<std::int32_t>(slots[p].size());
    for (const std::int32_t slot : slots[p]) {
      result.row_of_slot[static_cast<std::size_t>(slot)] = static_cast<std::int32_t>(row);
      result.token_of_row[row++] = static_cast<std::int32_t>(slot / k);
    }
  }
  return result;
}

// i32 [values / k, k] in rows that lie `gap` numbers apart.
class StridedInts {
 public:
  StridedInts(const Ints& values, std::int64_t k, std::int64_t gap)
      : owner_(tested(), Purpose::workspace, DType::i32,
               {static_cast<std::int64_t>(values.size()) / k, k + gap}),
        view_(owner_->slice_cols(0, k)) {
    std::ranges::fill(owner_->span<std::int32_t>(), 77);
    for (std::size_t i = 0; i < values.size(); ++i) element(i) = values[i];
  }
  const TensorView& view() const { return view_; }
  Ints values() const {
    Ints result(static_cast<std::size_t>(view_.numel()));
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = element(i);
    return result;
  }

 private:
  std::int32_t& element(std::size_t i) const {
    const auto k = static_cast<std::size_t>(view_.cols());
    return view_.row<std::int32_t>(static_cast<std::int64_t>(i / k))[i % k];
  }

  Tensor owner_;
  TensorView view_;
};

void expect_sorted(const Ints& choices, const Ints& places, std::int64_t num_places, std::int64_t k,
                   std::int64_t gap) {
  const Ints unset(choices.size(), -7);
  const StridedInts indices(choices, k, gap), row_of_slot(unset, k, gap);
  const Operand token_of_row = Operand::of_ints(unset);
  const Operand counts = Operand::of_ints(Ints(static_cast<std::size_t>(num_places), -7));
  kernels::sort_by_expert(indices.view(), places, counts, row_of_slot.view(), token_of_row);
  const Sorted wanted = sorted(choices, places, num_places, k);
  // Not EXPECT_EQ: nobody wants to read a million numbers.
  EXPECT_TRUE(counts.ints() == wanted.counts);
  EXPECT_TRUE(row_of_slot.values() == wanted.row_of_slot);
  EXPECT_TRUE(token_of_row.ints() == wanted.token_of_row);
}

TEST(SortByExpert, AMillionSlots) {
  struct Size {
    std::int64_t slots;
    std::int32_t experts;
    std::int64_t k;
    Skew skew;
    bool drops;
  };
  for (const Size& size :
       {Size{1 << 20, 64, 8, Skew::even, true}, Size{1 << 20, 300, 8, Skew::steep, false},
        Size{1 << 20, 3, 1, Skew::one, false}, Size{1'000'002, 3, 2, Skew::even, true},
        Size{300'000, 60, 2, Skew::none, true}, Size{600'000, 65, 8, Skew::one, true}}) {
    SCOPED_TRACE(testing::Message() << size.slots << " slots, " << size.experts << " experts");
    const Ints choices = random_choices(size.slots, size.experts, size.skew, size.drops);
    expect_sorted(choices, {}, size.experts, size.k, 0);
  }
}

// Around the sizes at which the slots are cut, with more experts than slots, too.
TEST(SortByExpert, OddSizes) {
  for (const std::int64_t slots : {1, 31, 512, 513, 640, 1025, 4096 + 3})
    for (const std::int32_t experts : {1, 33, 256, 257, 1500})
      for (const std::int64_t gap : {0, 3}) {
        SCOPED_TRACE(testing::Message() << slots << " slots, " << experts << " experts");
        expect_sorted(random_choices(slots, experts, Skew::even, true), {}, experts, 1, gap);
      }
}

// More experts than one launch takes along, some of whose places are nobody's.
TEST(SortByExpert, ThousandsOfPlaces) {
  for (const std::int32_t experts : {960, 961, 4000})
    for (const std::int64_t gap : {0, 1}) {
      Ints places(static_cast<std::size_t>(experts));
      for (std::size_t e = 0; e < places.size(); ++e)
        places[e] = experts + 4 - static_cast<std::int32_t>(e);
      const Ints choices = random_choices(60'000, experts, Skew::even, true);
      expect_sorted(choices, places, experts + 6, 4, gap);
    }
}

// Rows that several rounds of a warp's accesses take, aligned and not.
TEST(Permute, LongRows) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const std::int64_t hidden : {1032, 2304, 523})
      for (const std::int64_t gap : {0, 3, 8}) {
        SCOPED_TRACE(testing::Message() << name_of(dtype) << " " << hidden << " gap " << gap);
        constexpr std::int64_t tokens = 9, k = 6, n = tokens * k;
        const Ints choices = random_choices(n, 5, Skew::even, true);
        const Sorted order = sorted(choices, {}, 5, k);
        const Operand row_of_slot = Operand::of_ints(order.row_of_slot, k);
        const Operand token_of_row = Operand::of_ints(order.token_of_row);
        const Operand x(dtype, tokens, hidden, 1, gap), rows(dtype, n, hidden, 2, gap);
        const Operand drows(dtype, n, hidden, 3, gap), out(dtype, tokens, hidden, 4, gap);
        const Operand weights(DType::f32, tokens, k, 5, 1), dweights(DType::f32, tokens, k, 6, 1);
        const auto width = static_cast<std::size_t>(hidden);
        const Doubles xs = x.values(), ws = weights.values();

        kernels::gather_rows(x, token_of_row, rows);
        Doubles wanted(n * width, 0.0);
        for (std::size_t row = 0; row < n; ++row)
          if (const std::int32_t t = order.token_of_row[row]; t >= 0)
            std::copy_n(xs.begin() + t * hidden, hidden,
                        wanted.begin() + static_cast<std::int64_t>(row) * hidden);
        EXPECT_TRUE(rows.values() == wanted && rows.gaps_untouched());
        // Every row of a token is the token, so its sums are known.
        kernels::combine_rows(rows, row_of_slot, weights, out);
        Doubles sums(xs.size()), wanted_weights(ws.size(), 0.0), numbers(xs.size());
        for (std::size_t t = 0; t < tokens; ++t)
          for (std::size_t j = 0; j < k; ++j) {
            if (order.row_of_slot[t * k + j] < 0) continue;
            for (std::size_t i = t * width; i < (t + 1) * width; ++i) {
              sums[i] += ws[t * k + j] * xs[i];
              numbers[i] += xs[i];
              wanted_weights[t * k + j] += xs[i] * xs[i];
            }
          }
        expect_close(out, sums, tolerance_of(dtype));
        kernels::combine_rows_backward(x, rows, row_of_slot, weights, drows, dweights);
        expect_close(dweights, wanted_weights, 4e-6);
        kernels::sum_rows(rows, row_of_slot, out);
        expect_close(out, numbers, tolerance_of(dtype));
        // drows holds weight * x of each slot's token.
        Doubles wanted_rows = drows.values();
        for (std::size_t slot = 0; slot < n; ++slot)
          if (const std::int32_t row = order.row_of_slot[slot]; row >= 0)
            for (std::size_t i = 0; i < width; ++i)
              wanted_rows[static_cast<std::size_t>(row) * width + i] =
                  ws[slot] * xs[slot / k * width + i];
        expect_close(drows, wanted_rows, tolerance_of(dtype));
        // Back to where the slots are.
        const Operand slots(dtype, n, hidden, 7, gap), again(dtype, n, hidden, 8, gap);
        kernels::gather_rows(drows, row_of_slot.view().flat(), slots);
        kernels::scatter_rows(slots, row_of_slot.view().flat(), again);
        const Doubles there = drows.values(), back = again.values();
        for (std::size_t slot = 0; slot < n; ++slot) {
          const std::int32_t row = order.row_of_slot[slot];
          if (row < 0) continue;
          EXPECT_TRUE(std::equal(back.begin() + row * hidden, back.begin() + (row + 1) * hidden,
                                 there.begin() + row * hidden));
        }
        EXPECT_TRUE(again.gaps_untouched() && slots.gaps_untouched());
      }
}

}  // namespace
}  // namespace switchyard::test
