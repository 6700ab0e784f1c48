// Every way to name a checkpoint goes through here: checkpoint.resume, eval, generate and
// `switchyard checkpoint` take a checkpoint's folder (step-N, with or without '/' behind it, "." or
// a link to it), a folder of checkpoints, or a run's folder, which has a subfolder checkpoints.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "trainer/checkpoint/checkpoint.hpp"

namespace switchyard {

// What a path stands for: one checkpoint, or a folder of them. The other text is empty.
struct CheckpointPlace {
  std::string checkpoint;
  std::string folder;
};

// By names alone; what is there may be damaged. CheckpointError with the legal ways if nothing is.
CheckpointPlace place_of_checkpoint(const std::string& path);
// The checkpoint's folder, or that of the newest by name.
std::string resolve_checkpoint(const std::string& path);
// RUN/NAME of the run that `checkpoint` lies in (RUN/checkpoints/step-N, however it is written, or
// a link in a run or to one); none if there is nothing of the name.
std::optional<std::string> kept_in_run_of(const std::string& checkpoint, const std::string& name);

// Called on all ranks with the checkpoint's folder, which has been verified.
using ReadCheckpoint = std::function<void(const std::string& path)>;

// Collective: verifies the checkpoint that `path` names and calls `read`; of a folder it is the
// newest valid one (read_newest_valid). Returns its folder. CheckpointError if the named one is
// damaged, if there is none, and whatever `read` throws on all ranks.
std::string read_checkpoint(const std::string& path, Group& world, const Report& report,
                            const ReadCheckpoint& read);

// Called with the checkpoint's folder, which is being verified. `verified` waits for that, and
// throws if there is damage: nothing of what was read counts before.
using ReadMeanwhile =
    std::function<void(const std::string& path, const std::function<void()>& verified)>;

// The same on one process, for what reads every file: they are verified meanwhile, so that the disk
// gives each byte once. `read` must call `verified`. Of a folder, if the newest one is damaged, it
// is called again for the next.
std::string read_checkpoint_meanwhile(const std::string& path, const Report& report,
                                      const ReadMeanwhile& read);

}  // namespace switchyard
