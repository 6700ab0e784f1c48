// What tests that run under mpirun share: main() (mpi_main.cpp) makes the session, the tests borrow
// it. All ranks run the same tests in the same order.
#pragma once

#include "parallel/session.hpp"

namespace switchyard::test {

// The session of this process, alive while tests run.
Session& test_session();
inline Group& world() {
  return test_session().world();
}

}  // namespace switchyard::test
