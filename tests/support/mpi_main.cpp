// main() of every test that runs under mpirun. All ranks run the same tests; a failure on any rank
// fails the program, and only the rank that failed (and rank 0) prints. A test that ends early on
// one rank, by an exception or a fatal failure, would leave the others waiting in an exchange: it
// ends them all.
#include <gtest/gtest.h>

#include <cstdio>
#include <exception>

#include "tests/support/mpi_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {

namespace {

Session* session = nullptr;  // main's

class FailurePrinter final : public ::testing::EmptyTestEventListener {
 public:
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", world().rank(),
                 result.file_name() != nullptr ? result.file_name() : "?", result.line_number(),
                 result.summary());
  }
};

class JobEnder final : public ::testing::EmptyTestEventListener {
 public:
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (result.fatally_failed() && world().size() > 1) session->abort(1);
  }
};

int run_all_tests() {
  ::testing::TestEventListeners& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (world().rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailurePrinter);
  }
  listeners.Append(new JobEnder);
  int failed = RUN_ALL_TESTS();
  if (::testing::UnitTest::GetInstance()->test_to_run_count() == 0) {
    std::fprintf(stderr, "rank %d: no test ran\n", world().rank());
    failed = 1;
  }
  double any_failed = failed;
  world().all_reduce_values({&any_failed, 1}, ReduceOp::max);
  return any_failed > 0 ? 1 : 0;
}

}  // namespace

Session& test_session() {
  return *session;
}

}  // namespace switchyard::test

int main(int argc, char** argv) {
  switchyard::test::choose_tested_device();
  switchyard::Session session(&argc, &argv);
  switchyard::test::session = &session;
  ::testing::InitGoogleTest(&argc, argv);
  GTEST_FLAG_SET(catch_exceptions, false);
  try {
    return switchyard::test::run_all_tests();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d: a test threw: %s\n", session.world().rank(), error.what());
    session.abort(1);
  }
}
