// The values of a .json file, one after another: the elements of an array, or values that follow
// each other (an object a line, objects over several lines). Only finds where a value begins and
// ends, in as much memory as one value takes; what it means is left to a parser. Private to
// data/*.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "data/prepare/input_file.hpp"

namespace switchyard {

class JsonValues {
 public:
  // `first`: what was read from the file already, its first line.
  JsonValues(InputFile& file, std::string first, std::int64_t max_bytes);

  enum class Found : std::uint8_t {
    value,     // its text
    too_long,  // a value of more than max_bytes
    broken,    // a line that ends inside a string, a bracket that closes nothing, the file's end
               // inside a value; the next object is looked for
    end,       // no more
    damaged,   // as InputFile::Line::damaged
  };
  Found next(std::string& value);
  std::int64_t line() const { return value_line_; }  // where the last one began, from 1

 private:
  bool refill();  // false: nothing left to read, why is in `last_`
  char here() const { return chunk_[at_]; }
  void advance();
  bool find_begin();
  Found take(std::string& value);
  Found take_scalar(std::string& value);

  InputFile& file_;
  std::int64_t max_bytes_;
  std::string chunk_;
  std::size_t at_ = 0;
  InputFile::Line last_ = InputFile::Line::whole;
  std::int64_t line_ = 1;
  std::int64_t value_line_ = 1;
  bool has_begun_ = false;    // something but white space was seen
  bool is_in_array_ = false;  // of the file's outermost level
  bool looks_for_object_ = false;
};

}  // namespace switchyard
