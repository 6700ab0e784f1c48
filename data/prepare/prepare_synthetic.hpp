// prepare() of a made-up task. Private to data/prepare.
#pragma once

#include "data/prepare/prepare.hpp"

namespace switchyard {

// options.synthetic is given. Errors as prepare().
PrepareSummary prepare_synthetic(const PrepareOptions& options, const PrepareReports& reports);

}  // namespace switchyard
