/** Not among the tests of the addon that run under ASan, whose malloc it is then. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { trimMemory } from '../src/native.ts'

test('memory that is free below some that is not goes back to the system', async () => {
  setFlagsFromString('--expose-gc')
  const gc: unknown = runInNewContext('gc')
  assert.ok(typeof gc === 'function')
  let buffers = Array.from({ length: 1000 }, () => Buffer.alloc(60_000, 1))
  const last = Buffer.alloc(60_000, 1)
  buffers = []
  gc()
  await nextTurn()
  await nextTurn()
  const before = process.memoryUsage.rss()
  trimMemory()
  assert.ok(before - process.memoryUsage.rss() > 30_000_000)
  assert.equal(last[0], 1)
  assert.equal(buffers.length, 0)
})
