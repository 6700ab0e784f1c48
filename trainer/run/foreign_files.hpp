// Whose a folder is that a run is to write to. A run replaces and removes what it finds under the
// names of its own files, so it must be sure that a run of this program made them.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

// The entries of `run_folder` that a run would write to, replace or remove; none if a run of this
// program made the folder, or if there is no such folder. It did if its run.json says so or, for
// folders of versions before that file, if run.lock and restarts.json (or a checkpoint's manifest)
// are what only this program writes. Links count as entries and are not followed. Reads only.
std::vector<std::string> foreign_files_in(const std::string& run_folder);

// ConfigError that names them, with the remedy, if there are any.
void require_no_foreign_files(const std::string& run_folder);

}  // namespace switchyard
