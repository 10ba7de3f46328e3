import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parsePrefix } from '../address/prefix.ts'
import { Grace } from './grace.ts'
import type { Lease, LeaseKey } from './lease.ts'
import type { LeaseSnapshot } from './registry.ts'

function lease(n: number, expires?: number): Lease {
  const key = `10.5.${n}.0-24` as LeaseKey
  const subnets = { inet: parsePrefix(`10.5.${n}.0/24`) }
  return { key, subnets, publicIps: {}, backendType: 'vxlan', backendData: {}, expires, created: n }
}

/** @param gone Those that the snapshot before had. */
function snapshot(
  leases: readonly Lease[],
  gone: readonly Lease[] = [],
  incarnation = 'a',
  malformed: readonly Lease[] = [],
): LeaseSnapshot {
  return {
    kind: 'snapshot',
    config: undefined,
    leases: new Map(leases.map((each) => [each.key, each])),
    changed: new Set(gone.map(({ key }) => key)),
    gone: new Map(gone.map((each) => [each.key, each])),
    malformed: new Map(malformed.map(({ key }) => [key, 'bad JSON'])),
    incarnation,
  }
}

const keys = (known: { leases: ReadonlyMap<LeaseKey, Lease> } | undefined) =>
  [...(known?.leases.keys() ?? [])].toSorted()
const [ONE, TWO] = [lease(1), lease(2)]

test('an absent lease is gone', () => {
  const grace = new Grace(1000)
  grace.take(snapshot([ONE, TWO]), 0)
  const known = grace.take(snapshot([ONE], [TWO]), 1)
  assert.deepEqual([keys(known), known.changed], [[ONE.key], new Set([TWO.key])])
  assert.equal(grace.deadline, undefined)
})

test('a replaced store is given time, and what is still absent then is gone', () => {
  const grace = new Grace(1000)
  grace.take(snapshot([ONE, TWO]), 0)
  assert.deepEqual(keys(grace.take(snapshot([], [ONE, TWO], 'b'), 10)), [ONE.key, TWO.key])
  assert.deepEqual([grace.held, grace.deadline], [2, 1010])
  assert.deepEqual(keys(grace.take(snapshot([ONE], [], 'b'), 20)), [ONE.key, TWO.key])
  assert.equal(grace.held, 1)
  const known = grace.expire(1010)
  assert.deepEqual([keys(known), known?.changed], [[ONE.key], new Set([TWO.key])])
  assert.equal(grace.deadline, undefined)
  assert.deepEqual(keys(grace.take(snapshot([ONE], [], 'b'), 1020)), [ONE.key])
})

test('a lease that came back and is then removed is gone at once', () => {
  const grace = new Grace(1000)
  grace.take(snapshot([ONE, TWO]), 0)
  grace.take(snapshot([], [ONE, TWO], 'b'), 10)
  grace.take(snapshot([ONE, TWO], [], 'b'), 20)
  assert.deepEqual(keys(grace.take(snapshot([ONE], [TWO], 'b'), 30)), [ONE.key])
})

test('what another watch knew is compared with the first snapshot of the next', () => {
  const grace = new Grace(1000)
  grace.take(snapshot([ONE, TWO]), 0)
  const again = { ...snapshot([ONE]), changed: undefined }
  assert.deepEqual(keys(grace.take(again, 10)), [ONE.key])
  const replaced = { ...snapshot([], [], 'b'), changed: undefined }
  assert.deepEqual(keys(grace.take(replaced, 20)), [ONE.key])
})

test('what expired while the registry was unavailable is held, what was removed is not', () => {
  const grace = new Grace(1000)
  const [expired, removed, reserved] = [lease(1, 150), lease(2, 9000), lease(3)]
  grace.take(snapshot([expired, removed, reserved]), 0)
  grace.unavailable(100)
  grace.unavailable(180)
  assert.deepEqual(keys(grace.take(snapshot([], [expired, removed, reserved]), 200)), [expired.key])
  assert.deepEqual(keys(grace.expire(1200)), [])
})

test('a deadline within an outage does not end the outage', () => {
  const grace = new Grace(1000)
  const [first, second] = [lease(1, 150), lease(2, 1500)]
  grace.take(snapshot([first, second]), 0)
  grace.unavailable(100)
  assert.deepEqual(keys(grace.take(snapshot([second], [first]), 200)), [first.key, second.key])
  grace.unavailable(300)
  assert.deepEqual(keys(grace.expire(1200)), [second.key])
  assert.deepEqual(keys(grace.take(snapshot([], [second]), 1600)), [second.key])
})

test('an entry that cannot be read keeps the lease that it was, until it is gone', () => {
  const grace = new Grace(1000)
  grace.take(snapshot([ONE, TWO]), 0)
  assert.deepEqual(keys(grace.take(snapshot([ONE], [TWO], 'a', [TWO]), 10)), [ONE.key, TWO.key])
  assert.deepEqual(keys(grace.take(snapshot([ONE], [], 'a', [TWO]), 5000)), [ONE.key, TWO.key])
  assert.equal(grace.deadline, undefined)
  const known = grace.take(snapshot([ONE]), 5001)
  assert.deepEqual([keys(known), known.changed], [[ONE.key], new Set([TWO.key])])
})

test('in Kubernetes the entry of a lease is its node', () => {
  const grace = new Grace(1000)
  const [one, two] = [
    { ...ONE, node: 'a' },
    { ...TWO, node: 'b' },
  ]
  grace.take(snapshot([one, two]), 0)
  const broken = { ...snapshot([one], [two]), malformed: new Map([['b', 'public-ip is missing']]) }
  assert.deepEqual(keys(grace.take(broken, 10)), [one.key, two.key])
  assert.deepEqual(keys(grace.take(snapshot([one]), 20)), [one.key])
})
