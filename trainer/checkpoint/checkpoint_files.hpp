// The files of a checkpoint's folder, for whoever writes one: space taken before HDF5 writes,
// checkpoint.h5, and the folder's way to its final name (trainer/checkpoint/checkpoint.hpp).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/hdf5/hdf5.hpp"
#include "tensor/error.hpp"
#include "trainer/checkpoint/manifest.hpp"

namespace switchyard {

inline constexpr const char* whole_file_name = "checkpoint.h5";

// Chunks of one size that fill a dataset with almost nothing over: a chunk is stored whole.
hdf5::DatasetOptions checkpoint_dataset_options(std::int64_t numel);
// Upper bounds: of one dataset of numel numbers, and of what is not a rank's file.
std::int64_t bytes_of_dataset(std::int64_t numel);
std::int64_t bytes_of_shared_files(const std::vector<SavedTensor>& tensors);

// Makes a file and takes so many bytes of the disk for it. IoError if the system refuses them.
hdf5::File create_file_of(const std::string& path, std::int64_t bytes);
// Gives back what was reserved beyond the file's end.
void trim_reservation(const std::string& path);
CheckpointFile describe_file(const std::string& folder, const std::string& name);
// checkpoint.h5: every tensor whole, in virtual datasets.
void write_whole_file(const std::string& path, const Manifest& manifest, std::int64_t bytes);

// What an interrupted save or removal left: step-N.tmp and step-N.old.tmp.
void remove_leftovers(const std::string& folder);
// A checkpoint that names no course, or that nobody can read, is one of this run's folder.
bool is_of_another_course(const std::string& checkpoint, const std::string& course);
// IoError if the name is taken by another course.
void require_free_name(const std::string& path, const std::string& course);
// The folder takes its final name; one of the same step (damaged, or left) makes way.
void publish(const std::string& folder, const std::string& temporary, const std::string& name);

// File-system exceptions of the standard library as errors of ours.
template <class Work>
void with_io_errors(const Work& work) {
  try {
    work();
  } catch (const std::filesystem::filesystem_error& error) {
    throw IoError(error.path1().string() + ": " + error.code().message());
  }
}

}  // namespace switchyard
