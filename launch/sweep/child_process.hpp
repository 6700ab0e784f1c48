// A program that another process starts and waits for, in a process group of its own, so that a
// Ctrl-C reaches it only through us.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace switchyard {

// Runs words[0] with its output appended to the file `log` and no input; returns its exit code, 128
// and the signal if one ended it. While `is_stopped()` says so, it gets SIGUSR1, once; it also gets
// it when this process dies. IoError if it cannot be started.
int run_child(const std::vector<std::string>& words, const std::string& log,
              const std::function<bool()>& is_stopped);

// The same for a short program whose output is wanted: to the standard output and to the standard
// error together.
int run_child_for_text(const std::vector<std::string>& words, std::string& text);

}  // namespace switchyard
