// Each collective over NCCL against the MPI group, which stages the same tensors through the host:
// the same bits. Several ranks may share a card here: a host name of its own for each keeps NCCL
// from refusing that. Without a card: what the program says where NCCL cannot be used.
#include "parallel/group/nccl_group.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/host_copy.hpp"
#include "tensor/cuda/cuda_device.hpp"
#include "tensor/error.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

class NcclGroupTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_tested_on_card()) GTEST_SKIP() << "for a card";
    const std::string host = "rank" + std::to_string(rank_);
    ::setenv("NCCL_HOSTID", host.c_str(), 1);
    ::setenv("NCCL_SOCKET_IFNAME", "lo", 1);
    for (const char* name : {"NCCL_IB_DISABLE", "NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE"})
      ::setenv(name, "1", 1);
    device_ = make_cuda_device(rank_ % num_cuda_cards());
    group_ = nccl::make_group(world(), *device_, test_session().log(), rank_);
  }

  // Numbers of any size and sign, so that the order of a sum shows in its bits.
  template <class T>
  std::vector<T> operand(std::int64_t numel, int salt = 0) const {
    std::vector<T> values(static_cast<std::size_t>(numel));
    std::uint64_t state = static_cast<std::uint64_t>(rank_ * 7919 + salt + 1);
    for (T& value : values) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      value = static_cast<T>(static_cast<double>(static_cast<std::int64_t>(state >> 20)) *
                             (std::is_integral_v<T> ? 1e-9 : 1e-7));
    }
    return values;
  }
  template <class T>
  Tensor on_card(const std::vector<T>& values) {
    Tensor tensor(*device_, Purpose::communication, DTypeOf<T>::value, {std::ssize(values)});
    kernels::copy_from_host<T>(values, tensor.view());
    return tensor;
  }
  template <class T>
  std::vector<T> contents(const Tensor& tensor) const {
    const kernels::HostContents<T> on_host(tensor.view());
    return {on_host.span().begin(), on_host.span().end()};
  }

  const int rank_ = world().rank();
  const int size_ = world().size();
  std::unique_ptr<Device> device_;
  std::unique_ptr<Group> group_;
};

template <class T>
class NcclReductions : public NcclGroupTest {};
using Types = ::testing::Types<float, double, std::int32_t, std::int64_t>;
TYPED_TEST_SUITE(NcclReductions, Types);

// Short ones go whole to all ranks, long ones in segments with uneven parts.
TYPED_TEST(NcclReductions, all_reduce_has_the_bits_of_mpi) {
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min})
    for (const std::int64_t numel : {1, 3, 1000, 70001, 1500000}) {
      const std::vector<TypeParam> values = this->template operand<TypeParam>(numel);
      const Tensor mine = this->on_card(values);
      const Tensor expected = this->on_card(values);
      this->group_->all_reduce(mine.view(), op);
      world().all_reduce(expected.view(), op);
      EXPECT_EQ(this->template contents<TypeParam>(mine),
                this->template contents<TypeParam>(expected))
          << numel << " elements";
    }
}

TEST_F(NcclGroupTest, reduce_scatter_and_all_gather_have_the_bits_of_mpi) {
  for (const std::int64_t part : {1, 5, 70001}) {
    const std::vector<float> values = operand<float>(part * size_);
    const Tensor mine = on_card(values);
    const Tensor expected = on_card(values);
    const Tensor staging(*device_, Purpose::communication, DType::f32, {part * size_});
    group_->reduce_scatter(mine.view(), staging.view());
    world().reduce_scatter(expected.view(), staging.view());
    EXPECT_EQ(contents<float>(mine), contents<float>(expected));
    group_->all_gather(mine.view());
    world().all_gather(expected.view());
    EXPECT_EQ(contents<float>(mine), contents<float>(expected));
  }
}

// Rank r sends (r + 2 p) % 3 rows to rank p: some send nothing to some.
TEST_F(NcclGroupTest, all_to_all_brings_the_rows_of_mpi) {
  constexpr std::int64_t cols = 7;
  const auto rows_between = [](int from, int to) { return std::int64_t{(from + 2 * to) % 3}; };
  std::vector<std::int64_t> sent, received;
  for (int p = 0; p < size_; ++p) {
    sent.push_back(rows_between(rank_, p));
    received.push_back(rows_between(p, rank_));
  }
  const auto sum = [](const std::vector<std::int64_t>& counts) {
    return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  };
  const Tensor rows = on_card(operand<float>(sum(sent) * cols));
  const TensorView send = sum(sent) == 0 ? TensorView{} : rows->reshape({sum(sent), cols});
  const Tensor mine(*device_, Purpose::communication, DType::f32, {sum(received), cols});
  const Tensor expected(*device_, Purpose::communication, DType::f32, {sum(received), cols});
  group_->all_to_all_v(send, sent, mine.view(), received);
  world().all_to_all_v(send, sent, expected.view(), received);
  EXPECT_EQ(contents<float>(mine), contents<float>(expected));
}

TEST_F(NcclGroupTest, broadcast_ring_and_subgroups_bring_what_mpi_brings) {
  const Tensor mine = on_card(operand<std::int32_t>(1001));
  const Tensor expected = on_card(operand<std::int32_t>(1001));
  group_->broadcast(mine.view(), size_ - 1);
  world().broadcast(expected.view(), size_ - 1);
  EXPECT_EQ(contents<std::int32_t>(mine), contents<std::int32_t>(expected));

  const Tensor sent = on_card(operand<float>(333, 5));
  const Tensor came = on_card(std::vector<float>(333));
  const Tensor came_by_mpi = on_card(std::vector<float>(333));
  const int next = (rank_ + 1) % size_;
  const int previous = (rank_ + size_ - 1) % size_;
  group_->send_receive(sent.view(), next, came.view(), previous);
  world().send_receive(sent.view(), next, came_by_mpi.view(), previous);
  EXPECT_EQ(contents<float>(came), contents<float>(came_by_mpi));

  std::vector<std::vector<int>> partition(2);
  for (int p = 0; p < size_; ++p) partition[static_cast<std::size_t>(p % 2)].push_back(p);
  if (size_ == 1) partition.resize(1);
  const std::unique_ptr<Group> half = group_->subgroup("half", partition);
  const std::unique_ptr<Group> half_by_mpi = world().subgroup("half", partition);
  const Tensor value = on_card(operand<float>(50, 9));
  const Tensor value_by_mpi = on_card(operand<float>(50, 9));
  half->all_reduce(value.view(), ReduceOp::sum);
  half_by_mpi->all_reduce(value_by_mpi.view(), ReduceOp::sum);
  EXPECT_EQ(contents<float>(value), contents<float>(value_by_mpi));
}

TEST(NcclLibrary, is_found_or_the_remedy_is_told) {
  const std::string trouble = nccl::find_trouble();
  if (trouble.empty())
    EXPECT_EQ(nccl::version_text().substr(0, 2), "2.");
  else
    EXPECT_NE(trouble.find("install NCCL"), std::string::npos) << trouble;
}

}  // namespace
}  // namespace switchyard::test
