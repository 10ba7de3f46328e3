/** Changes by the bundle. */

import type { Tick } from './follow.ts'
import type { Stored } from './range.ts'
import { within } from '../within.ts'

/** Milliseconds between two bundles: thousands of hosts may start at once, and what comes together is cheaper so. */
const INTERVAL = 20

/**
 * Milliseconds in which a watch that goes on after an outage catches up: etcd looks ten times a second for those that
 * lag. What expired in the outage is to be known with its end, for it is judged otherwise than what goes later.
 */
const CATCHING_UP = 1000

/** The same ticks: a change that comes after a quiet time at once, those that follow fast upon it as one. */
export async function* gather(
  begin: (signal: AbortSignal) => AsyncIterator<Tick, void>,
  signal: AbortSignal,
): AsyncGenerator<Tick, void> {
  const ends = new AbortController()
  const ticks = begin(AbortSignal.any([signal, ends.signal]))
  let changes: Map<string, Stored | undefined> | undefined
  /** When they are told; never, in an outage. */
  let due = 0
  let next = ticks.next()
  try {
    for (;;) {
      const result = await (changes === undefined ? next : within(next, due - performance.now()))
      if (result?.done === true) return
      if (result !== undefined) next = ticks.next()
      const tick = result?.value
      if (tick?.kind === 'changes') {
        changes ??= new Map()
        for (const [key, stored] of tick.changes) changes.set(key, stored)
        if (due === Number.POSITIVE_INFINITY) due = performance.now() + CATCHING_UP
      } else if (tick !== undefined) {
        if (tick.kind === 'contents') changes = undefined
        due = tick.kind === 'contents' ? 0 : Number.POSITIVE_INFINITY
        yield tick
      }
      if (changes === undefined || performance.now() < due) continue
      yield { kind: 'changes', changes }
      changes = undefined
      due = performance.now() + INTERVAL
    }
  } finally {
    ends.abort()
  }
}
