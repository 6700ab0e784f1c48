// The threads of this process's kernels. A kernel cuts its work into pieces by sizes alone; threads
// take pieces from a shared queue until none is left. So a thread that the system holds up delays
// the piece in its hands, not a fixed share of the work, and the call ends when the pieces are
// done, not when every thread has come. What a piece computes must not depend on who takes it.
//
// The calling thread takes part. The others are started by the first call that has use for them,
// sleep between calls (after a moment in which the next call may come), and end with the process.
// They may run where the calling thread may, or are bound to places as OMP_PROC_BIND says.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>

#include "tensor/device.hpp"

namespace switchyard::kernels {

// At first what OpenMP would take: OMP_NUM_THREADS, or the cores that this process may use.
int num_threads();
void set_num_threads(int num_threads);  // at least 1; not while a kernel runs
// Of the kernels of a device: on the plan device those of the machine that is planned for.
int num_threads_of(const Device& device);

// Borrows a callable void(std::int64_t piece, int thread).
class PieceBody {
 public:
  template <class Body>
  requires(!std::is_same_v<std::remove_cvref_t<Body>, PieceBody>) PieceBody(Body&& body)
      : body_(const_cast<void*>(static_cast<const void*>(std::addressof(body)))),
        call_([](void* given, std::int64_t piece, int thread) {
          (*static_cast<std::remove_reference_t<Body>*>(given))(piece, thread);
        }) {}
  void operator()(std::int64_t piece, int thread) const { call_(body_, piece, thread); }

 private:
  void* body_;
  void (*call_)(void*, std::int64_t, int);
};

// body(piece, thread) for the pieces 0 ... num_pieces - 1 (fewer than 2^32), each once, begun in
// that order. thread: 0 for the calling thread, others below min(num_threads(), max_threads); no
// two pieces have the same one at a time. Within a piece, or while another thread's call is under
// way, the calling thread does all pieces itself. The body must not throw.
void for_each_piece(std::int64_t num_pieces, PieceBody body,
                    int max_threads = std::numeric_limits<int>::max());

}  // namespace switchyard::kernels
