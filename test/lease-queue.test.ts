/** The order in which a backend's companion does things, and what it does with what fails. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseIp } from '../src/address/ip.ts'
import { parsePrefix } from '../src/address/prefix.ts'
import { BackendError } from '../src/backend/backend.ts'
import { LeaseQueue } from '../src/backend/lease-queue.ts'
import type { Lease, LeaseKey } from '../src/lease/lease.ts'

function lease(n: number, data = 'a', key = `10.10.${n}.0-24`): Lease {
  return {
    key: key as LeaseKey,
    subnets: { inet: parsePrefix(`10.10.${n}.0/24`) },
    publicIps: { inet: parseIp(`192.168.1.${n}`) },
    backendType: 'extension',
    backendData: { inet: data },
    expires: undefined,
    created: n,
  }
}

/** What is done is written down as `+11a`, `-11a`; what is in `failing` fails. */
class Bench {
  readonly done: string[] = []
  readonly failing = new Set<string>()
  /** Called in the middle of each step. */
  during: (what: string) => void = () => undefined
  readonly queue = new LeaseQueue({
    kind: 'test',
    same: (a, b) => a.backendData.inet === b.backendData.inet,
    add: (one) => this.#do('+', one),
    remove: (one) => this.#do('-', one),
  })

  /** Runs until nothing has been done for so long. Milliseconds. */
  async run(quiet = 60): Promise<string[]> {
    this.done.length = 0
    const stop = new AbortController()
    let timer = setTimeout(() => stop.abort(), quiet)
    for await (const _ of this.queue.run(stop.signal)) {
      clearTimeout(timer)
      timer = setTimeout(() => stop.abort(), quiet)
    }
    return [...this.done]
  }

  async #do(sign: string, { subnets, backendData }: Lease): Promise<void> {
    const what = `${sign}${subnets.inet?.split('.')[2]}${String(backendData.inet)}`
    this.done.push(what)
    this.during(what)
    await new Promise(setImmediate)
    if (this.failing.has(what)) throw new BackendError(`no ${what}`)
  }
}

describe('a queue of leases', () => {
  test('does one after the other, in their order', async () => {
    const bench = new Bench()
    bench.queue.exchange([], [lease(13), lease(11)])
    bench.queue.exchange([], [lease(12)])
    assert.deepEqual(await bench.run(), ['+13a', '+11a', '+12a'])
    bench.queue.exchange([lease(11)], [])
    bench.queue.exchange([lease(13)], [])
    assert.deepEqual(await bench.run(), ['-11a', '-13a'])
  })

  test('a lease that changed is removed, then added, also under another key; one that was renewed is left', async () => {
    const bench = new Bench()
    bench.queue.exchange([], [lease(11)])
    await bench.run()
    bench.queue.exchange([lease(11)], [{ ...lease(11), expires: 5 }])
    assert.deepEqual(await bench.run(), [])
    bench.queue.exchange([lease(11)], [lease(11, 'b')])
    assert.deepEqual(await bench.run(), ['-11a', '+11b'])
    bench.queue.exchange([lease(11, 'b')], [])
    bench.queue.exchange([], [lease(11, 'c', '10.10.11.0-24&fd10::-64')])
    assert.deepEqual(await bench.run(), ['-11b', '+11c'])
  })

  test('a peer that came and went while others were waited for is not done at all', async () => {
    const bench = new Bench()
    bench.queue.exchange([], [lease(11)])
    bench.queue.exchange([lease(11)], [])
    assert.deepEqual(await bench.run(), [])
  })

  test('what changes during a step is done after it', async () => {
    const bench = new Bench()
    bench.during = (what) => {
      if (what === '+11a') bench.queue.exchange([lease(11)], [])
      if (what === '-11a') bench.queue.exchange([], [lease(11, 'b')])
    }
    bench.queue.exchange([], [lease(11)])
    assert.deepEqual(await bench.run(), ['+11a', '-11a', '+11b'])
  })

  test('one that fails is tried again with growing pauses, and holds up no other', async () => {
    const bench = new Bench()
    bench.failing.add('+11a')
    bench.queue.exchange([], [lease(11), lease(12)])
    assert.deepEqual(await bench.run(350), ['+11a', '+12a', '+11a', '+11a'])
    assert.deepEqual([...bench.queue.failures], [['10.10.11.0-24', 'no +11a']])
    bench.failing.clear()
    assert.deepEqual(await bench.run(500), ['+11a'])
    assert.deepEqual([...bench.queue.failures], [])
  })

  test('a renewal does not shorten the pause', async () => {
    const bench = new Bench()
    bench.failing.add('+11a')
    bench.queue.exchange([], [lease(11)])
    assert.deepEqual(await bench.run(), ['+11a'])
    bench.queue.exchange([lease(11)], [lease(11)])
    assert.deepEqual(await bench.run(20), [])
  })

  test('one that failed and went is removed, as it may be there in part', async () => {
    const bench = new Bench()
    bench.failing.add('+11a')
    bench.queue.exchange([], [lease(11)])
    await bench.run()
    bench.queue.exchange([lease(11)], [])
    assert.deepEqual(await bench.run(), ['-11a'])
    assert.deepEqual([...bench.queue.failures], [])
  })

  test('one that failed, went and came back is added again', async () => {
    const bench = new Bench()
    bench.failing.add('+11a')
    bench.queue.exchange([], [lease(11)])
    await bench.run()
    bench.failing.clear()
    bench.queue.exchange([lease(11)], [])
    bench.queue.exchange([], [lease(11)])
    assert.deepEqual(await bench.run(), ['+11a'])
  })

  test('where the removal fails, what takes its place is added all the same', async () => {
    const bench = new Bench()
    bench.queue.exchange([], [lease(11)])
    await bench.run()
    bench.failing.add('-11a')
    bench.queue.exchange([lease(11)], [lease(11, 'b')])
    assert.deepEqual(await bench.run(250), ['-11a', '+11b'])
    assert.deepEqual([...bench.queue.failures], [])
  })

  test('a removal that fails is tried again, and given up in the end', async (context) => {
    const bench = new Bench()
    bench.queue.exchange([], [lease(11)])
    await bench.run()
    bench.failing.add('-11a')
    bench.queue.exchange([lease(11)], [])
    let now = performance.now()
    context.mock.method(performance, 'now', () => now)
    for (let attempt = 1; attempt <= 10; attempt++) {
      assert.equal(bench.queue.failures.size, attempt === 1 ? 0 : 1)
      assert.deepEqual(await bench.run(20), ['-11a'])
      now += 60_000
    }
    assert.deepEqual([...bench.queue.failures], [])
    assert.deepEqual(await bench.run(20), [])
  })
})
