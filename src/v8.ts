/** What is asked of V8 once the start is over: it is tuned for programs that go on as they began. */

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/**
 * Code that gets warm from now on is not compiled for speed any more; what the start compiled stays. Where a packet waits
 * for the answer to an L3 miss, V8's preparing and finishing of each such compilation (0.5 to 2 ms on this thread, some 30
 * times within the first 750 misses) was the tail of the first packet: p99 1.2 ms, and 0.5 without it (docs/scale.md).
 */
export function stopOptimizing(): void {
  setFlagsFromString('--no-maglev')
  setFlagsFromString('--no-turbofan')
}

/**
 * Gives back the memory that a start leaves behind, which V8 keeps for a long time, for work that does not come again.
 * Collects all garbage and moves what is left together, so that whole pages go back to the system in the seconds that
 * follow (measured with 10,000 leases: from 149 to 107 MiB). Stops this thread meanwhile: 12 ms with few leases, about 6
 * for each thousand more.
 *
 * V8 has no function for this but the `gc` of its tests. It is asked for at run time, because a flag on the command line
 * makes Node refuse its own compile cache, which costs 30 ms at every start.
 */
export function compactHeap(): void {
  setFlagsFromString('--expose-gc')
  setFlagsFromString('--compact-on-every-full-gc')
  try {
    const collect = runInNewContext('gc') as () => void
    collect()
  } finally {
    setFlagsFromString('--no-compact-on-every-full-gc')
    setFlagsFromString('--no-expose-gc')
  }
}
