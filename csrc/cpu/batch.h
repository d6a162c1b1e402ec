// The work of a batch. Warps that look at the image alike are cut into the same tiles; what becomes
// of one does not depend on the others.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/plan.h"

namespace stn_cuda {
namespace cpu {

// What a few of a warp's points tell of how it looks at an image.
struct Hints {
  bool columns = false;    // along columns: tiles as high as wide
  bool scattered = false;  // anywhere: nothing in a cache serves two neighbours
  bool sparse = false;     // at few of the pixels
  bool of_rows = false;    // nothing: each row of points is a warp's (as_rows, cpu/ways.h)
};

// How a kernel's work is cut, and what the plan points to.
struct Work {
  Plan plan;
  int64_t per_task;  // elements
  std::vector<int32_t> cuts;
  std::vector<double> partial;
};

class Batch {
 public:
  // Of `count` warps (splat: images): hints(n) of each of them, work(hints, n) for those that have
  // the same, n being the first.
  template <class HintsOf, class WorkOf>
  Batch(int64_t count, HintsOf&& hints, WorkOf&& work) : count_(count) {
    int8_t known[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
    const auto kind_of = [&](int64_t n) {
      const Hints of = hints(n);
      int8_t& kind = known[of.columns + 2 * of.scattered + 4 * of.sparse];
      if (kind < 0) {
        kind = static_cast<int8_t>(works_.size());
        works_.push_back(work(of, n));
      }
      return kind;
    };
    kind_of(0);
    for (int64_t n = 1; n < count; ++n) {
      const int8_t kind = kind_of(n);
      if (kind > 0 && kinds_.empty()) {
        took(Path::cut_apart);
        kinds_.resize(count);
      }
      if (!kinds_.empty()) kinds_[n] = kind;
    }
    if (kinds_.empty()) return;
    first_.resize(count + 1);
    for (int64_t n = 0; n < count; ++n) first_[n + 1] = first_[n] + tasks_of_one(works_[kinds_[n]]);
  }

  // The tasks of the warps before the n-th.
  int64_t tasks_before(int64_t n) const {
    return kinds_.empty() ? n * tasks_of_one(works_[0]) : first_[n];
  }
  int64_t tasks() const { return tasks_before(count_); }

  // Elements of a task's work, about.
  int64_t per_task() const { return works_[0].per_task; }

  // Whether something holds for all plans.
  template <class F>
  bool all(F&& f) const {
    return std::all_of(works_.begin(), works_.end(), [&](const Work& of) { return f(of.plan); });
  }

  // f(plan, n, m) for the warps [begin, end): for [n, m) of them, whose plan it is.
  template <class F>
  void for_alike(int64_t begin, int64_t end, F&& f) const {
    if (kinds_.empty()) return f(works_[0].plan, begin, end);
    for (int64_t n = begin, m; n < end; n = m) {
      for (m = n + 1; m < end && kinds_[m] == kinds_[n];) ++m;
      f(works_[kinds_[n]].plan, n, m);
    }
  }
  template <class F>
  void for_alike(F&& f) const {
    for_alike(0, count_, f);
  }

  // f(plan, first, last) for the tasks [begin, end) of all warps: for [first, last) of the plan's.
  template <class F>
  void for_tasks(int64_t begin, int64_t end, F&& f) const {
    if (kinds_.empty()) return f(works_[0].plan, begin, end);
    const int64_t n = std::upper_bound(first_.begin(), first_.end(), begin) - first_.begin() - 1;
    const int64_t m = std::lower_bound(first_.begin(), first_.end(), end) - first_.begin();
    for_alike(n, m, [&](const Plan& plan, int64_t from, int64_t to) {
      const int64_t before = from * (plan.tasks / count_) - first_[from];
      f(plan, before + std::max(begin, first_[from]), before + std::min(end, first_[to]));
    });
  }

 private:
  int64_t tasks_of_one(const Work& work) const { return count_ > 0 ? work.plan.tasks / count_ : 0; }

  int64_t count_;
  std::vector<Work> works_;
  std::vector<int8_t> kinds_;   // of each warp; empty: all have the first work
  std::vector<int64_t> first_;  // of each warp's tasks, and one past the last, if there are kinds
};

}  // namespace cpu
}  // namespace stn_cuda
