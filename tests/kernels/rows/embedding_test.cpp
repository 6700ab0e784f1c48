#include "kernels/rows/embedding.hpp"

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

std::vector<std::int32_t> some_tokens(std::int64_t n, int vocab_size) {
  std::vector<std::int32_t> tokens;
  std::mt19937 generator(5);
  for (std::int64_t t = 0; t < n; ++t)
    tokens.push_back(static_cast<std::int32_t>(generator() % static_cast<unsigned>(vocab_size)));
  return tokens;
}

TEST(Embedding, ForwardCopiesRowsAndBackwardAddsThem) {
  for_each_case([](const Case& c) {
    const std::int64_t tokens = 4 * c.rows;  // of 3 words: repeats
    const std::vector<std::int32_t> ids = some_tokens(tokens, 3);
    const Operand index = Operand::of_ints(ids), table(DType::f32, 3, c.cols, 1, c.gap);
    const Operand out(c.dtype, tokens, c.cols, 2, c.gap), dout(c.dtype, tokens, c.cols, 3, c.gap);
    const Operand dtable(DType::f32, 3, c.cols, 4, c.gap);
    const auto hidden = static_cast<std::size_t>(c.cols);
    const Doubles words = table.values(), gradients = dout.values();
    Doubles wanted_out, wanted = dtable.values();
    for (std::size_t i = 0; i < ids.size() * hidden; ++i) {
      const std::size_t place = static_cast<std::size_t>(ids[i / hidden]) * hidden + i % hidden;
      wanted_out.push_back(words[place]);
      wanted[place] += gradients[i];
    }
    kernels::embedding_forward(index, table, out);
    expect_close(out, wanted_out, c.dtype == DType::f32 ? 0 : 0x1p-9);
    kernels::embedding_backward(index, dout, dtable);
    expect_close(dtable, wanted, 4e-6);
  });
}

// In token order, which shows in the last bits: each sum of fp32 must be the one that a loop over
// the tokens gets. Vocabularies whose numbers have one digit of a sort to three; rare rows and one
// that half of all tokens have.
TEST(Embedding, AddsManyTokensInOrder) {
  struct Size {
    std::int64_t tokens;
    int vocab_size;
    std::int64_t hidden;
  };
  for (DType dtype : {DType::f32, DType::bf16})
    for (const auto& [num_tokens, vocab_size, hidden] :
         {Size{5000, 200, 24}, {5000, 50257, 16}, {5000, 70001, 3}, {300, 1, 1032}}) {
      SCOPED_TRACE(testing::Message() << name_of(dtype) << " " << vocab_size << " " << hidden);
      std::vector<std::int32_t> tokens = some_tokens(num_tokens, vocab_size);
      for (std::size_t t = 0; t < tokens.size(); t += 2) tokens[t] = vocab_size - 1;
      const Operand dout(dtype, num_tokens, hidden, 1), dtable(DType::f32, vocab_size, hidden, 2);
      const Doubles gradients = dout.values();
      Doubles wanted = dtable.values();
      const auto width = static_cast<std::size_t>(hidden);
      for (std::size_t t = 0; t < tokens.size(); ++t)
        for (std::size_t h = 0; h < width; ++h) {
          double& sum = wanted[static_cast<std::size_t>(tokens[t]) * width + h];
          sum = static_cast<double>(static_cast<float>(sum + gradients[t * width + h]));
        }
      kernels::embedding_backward(Operand::of_ints(tokens), dout, dtable);
      EXPECT_EQ(dtable.values(), wanted);
    }
}

TEST(Embedding, RefusesTokensOutsideTheTable) {
  const Operand table(DType::f32, 3, 4), out(DType::f32, 1, 4);
  expect_refused([&] { kernels::embedding_forward(Operand::of_ints({3}), table, out); });
  expect_refused([&] { kernels::embedding_backward(Operand::of_ints({-1}), out, table); });
}

TEST(Embedding, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const Operand index = Operand::of_ints(some_tokens(500, 7)), table(DType::f32, 7, 200, 1);
    const Operand out(DType::bf16, 500, 200), dtable(DType::f32, 7, 200, 2);
    kernels::embedding_forward(index, table, out);
    kernels::embedding_backward(index, out, dtable);
    return std::vector<Doubles>{out.values(), dtable.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
