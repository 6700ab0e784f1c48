// The chunked recurrence against the recurrence token by token in double: outputs, last states and
// every gradient, for each form of it, chunk lengths, documents, and sequences that are cut.
#include "kernels/recurrence/recurrence_problem.hpp"

namespace switchyard::test {
namespace {

class RecurrenceTest : public ::testing::TestWithParam<Form> {};

TEST_P(RecurrenceTest, ChunksGiveTheRecurrenceAndEveryGradient) {
  const Problem p(GetParam(), 37);
  expect_results(p, actual_of(p), expected_of(p));
}

// Runs know of each other by their maps alone; some are shorter than a chunk, or of one token.
TEST_P(RecurrenceTest, RunsThatHandTheirStatesOnGiveTheSame) {
  const Problem p(GetParam(), 37);
  const Results expected = expected_of(p);
  std::vector<std::vector<std::int64_t>> cuts = {{16}, {1, 9, 10, 30}, {20, 36}};
  if (p.form().exclusive) cuts = {{16}, {8, 24, 32}};  // where segments begin
  for (const std::vector<std::int64_t>& borders : cuts)
    expect_results(p, actual_of(p, borders), expected);
}

INSTANTIATE_TEST_SUITE_P(Forms, RecurrenceTest, ::testing::ValuesIn(recurrent_forms()),
                         [](const auto& each) { return each.param.name; });

// Cumulated gates of a long sequence would lose the small ones; those of a chunk do not.
TEST(Recurrence, ALongSequenceKeepsItsAccuracy) {
  const Form form{
      .name = "long", .gates = Gates::tokens, .delta = true, .chunk = 64, .gate_scale = 1};
  const Problem p(form, 3000);
  expect_results(p, actual_of(p), expected_of(p));
}

TEST(Recurrence, OperandsThatDoNotFitAreRefused) {
  const Problem p(recurrent_forms().front(), 5);
  const PositionRange run{0, 5};
  const RecurrenceShape shape = p.shape({&run, 1});
  const Tensor workspace = workspace_of(shape);
  const Outputs o(p);
  expect_refused([&] { recurrence_forward(shape, p.inputs(), {}, {.out = o.out}, {}, workspace); });
  RecurrenceShape other = shape;
  other.num_groups = 3;
  expect_refused(
      [&] { recurrence_forward(other, p.inputs(), {}, o.outputs(p.form()), {}, workspace); });
  other = shape;
  other.exclusive = true;
  const PositionRange late{3, 5};  // within a segment
  other.runs = {&late, 1};
  expect_refused(
      [&] { recurrence_forward(other, p.inputs(), {}, o.outputs(p.form()), {}, workspace); });
  other = shape;
  other.delta = true;  // and no betas
  expect_refused(
      [&] { recurrence_forward(other, p.inputs(), {}, o.outputs(p.form()), {}, workspace); });
}

}  // namespace
}  // namespace switchyard::test
