#include "tensor/memory_ledger.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

TEST(MemoryLedger, PeakIsRememberedWithItsParts) {
  MemoryLedger ledger;
  ledger.add(Purpose::parameter, 128);
  ledger.add(Purpose::activation, 640);
  ledger.remove(Purpose::activation, 640);
  ledger.add(Purpose::workspace, 256);
  EXPECT_EQ(ledger.live_total(), 384);
  EXPECT_EQ(ledger.live(Purpose::activation), 0);
  EXPECT_EQ(ledger.live(Purpose::workspace), 256);
  EXPECT_EQ(ledger.peak_total(), 768);
  EXPECT_EQ(ledger.at_peak(Purpose::parameter), 128);
  EXPECT_EQ(ledger.at_peak(Purpose::activation), 640);
  EXPECT_EQ(ledger.at_peak(Purpose::workspace), 0);
  ledger.add(Purpose::gradient, 1024);
  EXPECT_EQ(ledger.peak_total(), 1408);
  std::int64_t parts = 0;
  for (int p = 0; p < num_purposes; ++p) parts += ledger.at_peak(static_cast<Purpose>(p));
  EXPECT_EQ(parts, ledger.peak_total());
}

TEST(MemoryLedger, RoundsUpToItsGranularity) {
  EXPECT_EQ(MemoryLedger::rounded(0), 0);
  EXPECT_EQ(MemoryLedger::rounded(1), 64);
  EXPECT_EQ(MemoryLedger::rounded(64), 64);
  EXPECT_EQ(MemoryLedger::rounded(65), 128);
}

TEST(MemoryLedger, ASumThatFitsNoMachineIsRefusedAndNotCounted) {
  MemoryLedger ledger;
  ledger.add(Purpose::parameter, std::int64_t{1} << 62);
  EXPECT_THROW(ledger.add(Purpose::gradient, std::int64_t{1} << 62), MemoryError);
  EXPECT_EQ(ledger.live_total(), std::int64_t{1} << 62);
  EXPECT_EQ(ledger.live(Purpose::gradient), 0);
}

TEST(MemoryLedger, AddressSpaceIsCountedBesideMemory) {
  MemoryLedger ledger;
  ledger.reserve(1024);
  ledger.add(Purpose::activation, 64);
  ledger.reserve(128);
  ledger.unreserve(1024);
  EXPECT_EQ(ledger.reserved(), 128);
  EXPECT_EQ(ledger.peak_reserved(), 1152);
  EXPECT_EQ(ledger.peak_total(), 64);
  EXPECT_THROW(ledger.unreserve(192), InternalError);
  EXPECT_THROW(ledger.reserve(std::numeric_limits<std::int64_t>::max()), MemoryError);
  EXPECT_EQ(ledger.reserved(), 128);
}

TEST(MemoryLedger, RemovesNoMoreThanThereIs) {
  MemoryLedger ledger;
  ledger.add(Purpose::gradient, 64);
  EXPECT_THROW(ledger.remove(Purpose::gradient, 128), InternalError);
  EXPECT_THROW(ledger.remove(Purpose::optimizer, 64), InternalError);
}

}  // namespace
}  // namespace switchyard
