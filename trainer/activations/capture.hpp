// Capture of activations: chosen tensors of chosen layers and steps, in RUN/captures/step-N/. Each
// rank writes one HDF5 file with its own tokens; capture.h5 shows all of them whole by virtual
// datasets: layers.L/TENSOR, f32 [sequences of the step, sequence_length, ...] in ascending order
// of sequence_ids, whatever the number of ranks and however they share sequences. The folder takes
// its name when everything in it is complete.
//
// In the step rows are only copied. A thread compresses them; between steps the main thread, the
// only one that calls HDF5, writes the chunks that are ready. One capture is under way at a time.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "data/hdf5/hdf5.hpp"
#include "data/loader.hpp"
#include "model/activation_observer.hpp"
#include "parallel/group/group.hpp"
#include "trainer/activations/copy_thread.hpp"
#include "trainer/config.hpp"
#include "trainer/whole_sequences.hpp"

namespace switchyard {

class Capture final : public ActivationObserver {
 public:
  // Collective, as all functions but the observer's own. IoErrors are those of any rank.
  Capture(const Config& config, const BatchLayout& layout, Group& world);
  ~Capture() override;

  bool wants(std::int64_t step) const;
  // Before and after a step that is wanted.
  void begin_step(std::int64_t step);
  void end_step();
  // Between steps: writes what is ready, and gives the capture its name when it is complete on all
  // ranks. Its path when it has just become so, else empty.
  std::string advance();
  // Waits for what is under way; as advance().
  std::string finish();
  std::string path_of(std::int64_t step) const;

  void begin(const TensorView& sequence_ids) override;
  void observe(std::int64_t layer, ObservedTensor which, const TensorView& rows) override;

 private:
  struct Source {  // a dataset of a rank's file
    std::int64_t layer = 0;
    ObservedTensor which = ObservedTensor::hidden;
    std::int64_t num_cols = 0;
    hdf5::Dataset dataset;
  };
  struct Chunk {
    std::size_t source = 0;
    std::array<std::int64_t, Shape::max_dims> begin{};  // in the rank's dataset
    std::vector<std::byte> bytes;
  };

  static std::string dataset_name(const Source& source);
  Shape local_shape(const Source& source) const;
  std::int64_t rows_of_chunk(std::int64_t num_cols) const;
  void choose_sources(const Config& config);
  void open_file();
  void start_compression(Chunk chunk);
  void write_ready_chunks();
  bool is_complete() const { return num_written_ == num_chunks_ && has_ended_; }
  void publish();
  void write_whole_file(const std::string& path, const WholeSequences& sequences) const;
  std::string temporary_folder() const { return path_of(step_) + ".tmp"; }

  std::string folder_;
  std::vector<std::int64_t> steps_;
  BatchLayout layout_;
  Group& world_;
  std::vector<Source> sources_;  // the same on every rank

  std::int64_t step_ = 0;  // under way; 0: none
  bool has_ended_ = false;
  std::vector<std::int64_t> sequence_ids_;  // of this rank's sequences so far
  std::int64_t num_sequences_now_ = 0;      // of the micro-batch at work
  std::int64_t num_chunks_ = 0;
  std::int64_t num_written_ = 0;
  std::unique_ptr<hdf5::File> file_;

  std::mutex mutex_;
  std::vector<Chunk> ready_;                           // compressed, under mutex_
  CopyThread compression_{CopyThread::Priority::low};  // dies first
};

}  // namespace switchyard
