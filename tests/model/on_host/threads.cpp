// How the threads of a block take turns on a processor; see cuda.h.

#include "threads.h"

#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace on_host {
namespace {

constexpr size_t STACK = 128 * 1024;
constexpr u32 NONE = ~0u;
constexpr auto PATIENCE = std::chrono::seconds(5);
constexpr u32 MOST_STILL = 1000;  // rounds: the process itself may have been stopped for long

struct Copy {
  void* to;
  const void* from;
  u32 bytes;
};

// Its arrival is one of those that a barrier counts, or of `bytes` that it waits for.
struct Late {
  std::vector<Copy> copies;
  u32 barrier, bytes = 0;
};

// The 8 bytes of a barrier in shared memory.
struct Barrier {
  u16 expected, pending, bytes, phase;

  void settle() {
    if (!pending && !bytes) pending = expected, phase++;
  }
};

// Threads that do something together once all of them have come.
struct Meeting {
  u32 arrived = 0, turn = 0;
  void* given[1024];
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  u32 index = 0;
  bool done = false, waits = false;
  u32 cluster_turn = 0;
  std::vector<std::vector<Copy>> groups{1};  // of copies that no barrier knows of; the last one is open
};

struct Block;

// Blocks that see each other's shared memory.
struct Cluster {
  std::vector<Block*> blocks;
  std::barrier<> begin;
  std::atomic<u32> arrived = 0, turn = 0;
  explicit Cluster(u32 size) : blocks(size), begin(size) {}
};

struct Block {
  Cluster* cluster;
  char* memory;
  std::vector<char*> placed;  // by the compiler
  std::vector<Fiber> fibers;
  std::vector<Meeting> warps;
  Meeting all;
  std::vector<Late> late;
  ucontext_t scheduler;
  Fiber* running = nullptr;
  bool strayed = false;
  std::minstd_rand chance;
  Body body;
  void** given;
};

thread_local Block* here = nullptr;

// An address's part of a window. What the compiler places lies anywhere: it has places beyond the memory.
constexpr u32 INSIDE = (1u << WINDOW) - 1, PLACE = 1024;

char* at_in(const Block& block, u32 at) {
  static thread_local char nowhere[PLACE + 64];
  at &= INSIDE;
  if (at < SHARED) return block.memory + at;
  const size_t place = at / PLACE - SHARED / PLACE;
  here->strayed |= place >= block.placed.size();
  return (place < block.placed.size() ? block.placed[place] : nowhere) + at % PLACE;
}

void look_out(u32 at) { here->strayed |= (at ^ window()) >> WINDOW != 0; }

Barrier& barrier(u32 at) { return *(Barrier*)shared(at); }

template <typename Condition>
void wait_until(Condition met) {
  Fiber* mine = here->running;
  while (!met()) {
    mine->waits = true;
    swapcontext(&mine->context, &here->scheduler);
  }
}

void meet(Meeting& meeting, u32 size, u32 place, void* mine, Once once) {
  const u32 turn = meeting.turn;
  meeting.given[place] = mine;
  if (++meeting.arrived == size) {
    if (once) once(meeting.given);
    meeting.arrived = 0;
    meeting.turn++;
  } else {
    wait_until([&] { return meeting.turn != turn; });
  }
}

void perform(const std::vector<Copy>& copies) {
  for (const Copy& copy : copies) memcpy(copy.to, copy.from, copy.bytes);
}

// Some of what is under way arrives, whatever was sent first.
void deliver(Block& block) {
  std::shuffle(block.late.begin(), block.late.end(), block.chance);
  for (size_t many = 1 + block.chance() % block.late.size(); many; many--) {
    perform(block.late.back().copies);
    const Late& last = block.late.back();
    if (last.bytes)
      barrier(last.barrier).bytes -= last.bytes, barrier(last.barrier).settle();
    else
      arrive(last.barrier);
    block.late.pop_back();
  }
}

void enter() {
  here->body(here->given);
  here->running->done = true;
  swapcontext(&here->running->context, &here->scheduler);
}

void prepare(Block& block, u32 threads) {
  memset(memory, 0x7f, SHARED);  // not zeros: what is never written shows
  block.fibers.resize(threads);
  block.warps.resize((threads + 31) / 32);
  for (u32 i = 0; i < threads; i++) {
    Fiber& fiber = block.fibers[i];
    fiber.index = i;
    fiber.stack = std::make_unique_for_overwrite<char[]>(STACK);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    makecontext(&fiber.context, enter, 0);
  }
}

// Lets each thread of a warp go on as far as it can; true where one did.
bool go_on(Block& block, u32 warp, u32& left) {
  bool moved = false;
  for (u32 i = warp * 32; i < std::min<u32>((warp + 1) * 32, block.fibers.size()); i++) {
    Fiber& fiber = block.fibers[i];
    if (fiber.done) continue;
    block.running = &fiber;
    threadIdx = {i, 0};
    fiber.waits = false;
    swapcontext(&block.scheduler, &fiber.context);
    moved |= !fiber.waits;
    left -= fiber.done;
  }
  return moved;
}

std::string leftovers(const Block& block) {
  if (block.strayed) return "an address of another block's memory, or of none";
  if (!block.late.empty()) return "copies are under way at the end";
  for (const Fiber& fiber : block.fibers)
    for (const auto& group : fiber.groups)
      if (!group.empty()) return "copies that nobody waited for";
  return "";
}

// Every thread of a block to its end; what went wrong, or nothing.
std::string run(Block& block, u32 threads) {
  here = &block;
  block.memory = memory;
  block.cluster->blocks[blockIdx.x % block.cluster->blocks.size()] = &block;
  block.cluster->begin.arrive_and_wait();
  prepare(block, threads);
  std::vector<u32> warps(block.warps.size());
  for (u32 w = 0; w < warps.size(); w++) warps[w] = w;
  u32 asleep = NONE, still = 0;  // one warp sleeps until no other can go on: for some rounds, none did
  auto last_move = std::chrono::steady_clock::now();
  for (u32 left = threads; left;) {
    bool moved = false;
    std::shuffle(warps.begin(), warps.end(), block.chance);
    for (u32 w : warps)
      if (w != asleep && block.chance() % 4) moved |= go_on(block, w, left);
    still = moved ? 0 : still + 1;
    if (!block.late.empty() && (still || block.chance() % 8 == 0))
      deliver(block);
    else if (still > 8)
      asleep = NONE;
    else if (asleep == NONE && block.chance() % 8 == 0)
      asleep = block.chance() % warps.size();
    if (moved)
      last_move = std::chrono::steady_clock::now();
    else if (still > MOST_STILL && std::chrono::steady_clock::now() - last_move > PATIENCE)
      return "a block stands still";
    else
      std::this_thread::yield();
  }
  return leftovers(block);
}

}  // namespace

alignas(1024) __thread char memory[SHARED];
__thread Index threadIdx, blockIdx, gridDim, blockDim;

void in_warp(void* mine, Once once) {
  const u32 index = here->running->index;
  meet(here->warps[index / 32], 32, index % 32, mine, once);
}

u32 window() { return blockIdx.x % here->cluster->blocks.size() << WINDOW; }

u32 address(const void* at) {
  char* const it = (char*)at;
  auto& placed = here->placed;
  if (it >= memory && it < memory + SHARED) return window() | (u32)(it - memory);
  auto found = std::find_if(placed.begin(), placed.end(), [=](char* one) { return it >= one && it < one + PLACE; });
  if (found == placed.end()) found = placed.insert(found, it);
  return window() | (SHARED + (u32)(found - placed.begin()) * PLACE + (u32)(it - *found));
}

char* shared(u32 at) {
  look_out(at);
  return at_in(*here, at);
}

void in_block() { meet(here->all, blockDim.x, here->running->index, nullptr, nullptr); }

// A copy may be done at once, or when somebody waits for it.
void begin_copy(void* to, const void* from, u32 bytes) {
  if (here->chance() % 2)
    memcpy(to, from, bytes);
  else
    here->running->groups.back().push_back({to, from, bytes});
}

void end_group() { here->running->groups.emplace_back(); }

void wait_for_groups(u32 most) {
  auto& groups = here->running->groups;
  for (; groups.size() > most + 1; groups.erase(groups.begin())) perform(groups.front());
}

void make_barrier(u32 at, u32 arrivals) { barrier(at) = {(u16)arrivals, (u16)arrivals, 0, 0}; }

void arrive(u32 at) {
  barrier(at).pending--;
  barrier(at).settle();
}

void expect_bytes(u32 at, u32 bytes) {
  barrier(at).bytes += bytes;
  arrive(at);
}

void begin_bulk(void* to, const void* from, u32 bytes, u32 barrier) {
  here->late.push_back({{{to, from, bytes}}, barrier, bytes});
}

void arrive_with_copies(u32 at) {
  auto& open = here->running->groups.back();
  here->late.push_back({std::move(open), at});
  open.clear();
}

void wait_at(u32 at, u32 parity) {
  wait_until([=] { return (barrier(at).phase & 1) != parity; });
}

void arrive_in_cluster() {
  Cluster& cluster = *here->cluster;
  here->running->cluster_turn = cluster.turn;
  if (++cluster.arrived == blockDim.x * cluster.blocks.size()) cluster.arrived = 0, cluster.turn++;
}

void wait_in_cluster() {
  const u32 turn = here->running->cluster_turn;
  wait_until([=] { return here->cluster->turn != turn; });
}

void expect_stores(u32 at, u32 bytes) { *(u32*)shared(at) = bytes; }

void store_in_cluster(u32 at, u32 barrier, u32 block, const void* from, u32 bytes) {
  const Block& there = *here->cluster->blocks.at(block);
  look_out(at);
  memcpy(at_in(there, at), from, bytes);
  __atomic_sub_fetch((u32*)at_in(there, barrier), bytes, __ATOMIC_SEQ_CST);
}

void wait_for_stores(u32 at) {
  wait_until([=] { return __atomic_load_n((u32*)shared(at), __ATOMIC_SEQ_CST) == 0; });
}

void launch(Body body, Index grid, u32 threads, u32 size, u32 at_once, u32 seed, void** given, char* error) {
  std::vector<std::string> errors(grid.x * grid.y);
  const u32 many = at_once * size;
  for (u32 first = 0; first < errors.size(); first += many) {
    std::vector<std::thread> running;
    std::deque<Cluster> clusters;
    for (u32 b = first; b < std::min<u32>(first + many, errors.size()); b++) {
      if (b % size == 0) clusters.emplace_back(size);
      running.emplace_back([&, b, cluster = &clusters.back()] {
        auto block = std::make_unique<Block>();
        block->cluster = cluster;
        block->body = body;
        block->given = given;
        block->chance.seed(seed * 7919 + b + 1);
        blockIdx = {b % grid.x, b / grid.x};
        gridDim = grid;
        blockDim = {threads, 1};
        errors[b] = run(*block, threads);
      });
    }
    for (auto& thread : running) thread.join();
    for (const auto& text : errors)
      if (!text.empty()) return (void)strcpy(error, text.c_str());
  }
}

}  // namespace on_host
