// From values to places on an axis: its range, its marks, and where a value lies.
#pragma once

#include <string>
#include <vector>

namespace switchyard::report {

class Scale {
 public:
  // From `first` to `last`, in units of the figure, for the finite values among `values` (positive
  // ones, on a logarithmic axis). Without any: 0 to 1, or 1 to 10.
  Scale(const std::vector<double>& values, bool logarithmic, bool from_zero, double first,
        double last);
  // Whether a value can be drawn.
  bool takes(double value) const;
  double place(double value) const;
  // Round numbers inside the range, at most six.
  const std::vector<double>& marks() const { return marks_; }
  void keep_whole_marks();

 private:
  double mapped(double value) const;

  bool logarithmic_;
  double least_ = 0;
  double most_ = 1;
  double first_;
  double last_;
  std::vector<double> marks_;
};

// 1200, 12k, 1.5M, 3e-05: for marks of axes.
std::string mark_text(double value);

}  // namespace switchyard::report
