import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import pino from 'pino'
import { parseIp } from '../address/ip.ts'
import { parsePrefix } from '../address/prefix.ts'
import type { OutcomeChange } from '../lease/admission.ts'
import type { Outcome } from '../lease/judge.ts'
import { formatLeaseKey, type Lease, type LeaseKey } from '../lease/lease.ts'
import { Journal } from './journal.ts'

function lease(subnet: string, publicIp: string): Lease {
  const subnets = { inet: parsePrefix(subnet) }
  return {
    key: formatLeaseKey(subnets),
    subnets,
    publicIps: { inet: parseIp(publicIp) },
    backendType: 'vxlan',
    backendData: {},
    expires: undefined,
    created: 1,
  }
}

const OWN = lease('10.10.10.0/24', '192.168.1.10')
const PEER = lease('10.10.11.0/24', '192.168.1.11')
const BAD = lease('10.11.0.0/24', '192.168.1.12')
const OWN_OUTCOME: Outcome = { kind: 'own' }
const OUTCOMES = new Map<Lease, Outcome>([
  [OWN, OWN_OUTCOME],
  [PEER, { kind: 'admitted', lease: PEER }],
  [BAD, { kind: 'refused', reason: 'it is bad' }],
])

/** A journal that has seen all three, and what it says of the snapshots that follow. */
function journalOfThree() {
  const said: string[] = []
  const log = pino({}, { write: (line: string) => said.push(JSON.parse(line).msg) })
  const journal = new Journal(log, '0.0.0', 'sqlite:x')
  let known = new Map<LeaseKey, Lease>()
  const snapshot = (leases: readonly Lease[], malformed: Record<string, string> = {}): string[] => {
    const before = known
    known = new Map(leases.map((each) => [each.key, each]))
    const changes: OutcomeChange[] = []
    const outcomeOf = (each: Lease | undefined) => each && OUTCOMES.get(each)
    for (const key of new Set([...before.keys(), ...known.keys()])) {
      if (before.has(key) && known.has(key)) continue
      changes.push({ key, before: outcomeOf(before.get(key)), after: outcomeOf(known.get(key)) })
    }
    const outcomes = new Map(leases.map((each) => [each.key, OUTCOMES.get(each) ?? OWN_OUTCOME]))
    journal.snapshot({ leases: known, malformed: new Map(Object.entries(malformed)) }, outcomes, changes)
    return said.splice(0)
  }
  snapshot([OWN, PEER, BAD])
  return { journal, snapshot }
}

describe('leases that go', () => {
  test('a peer left; one that was refused was no peer; our own is not a peer of ours', () => {
    const { snapshot } = journalOfThree()
    assert.deepEqual(snapshot([OWN, BAD]), ['peer left'])
    assert.deepEqual(snapshot([OWN]), ['lease that was not used is gone'])
    assert.deepEqual(snapshot([]), [])
  })

  test('what comes back is said, and counted, again; what stays is not', () => {
    const { journal, snapshot } = journalOfThree()
    assert.deepEqual(snapshot([OWN, PEER, BAD], { junk: 'no key' }), ['lease refused: no key'])
    assert.deepEqual(snapshot([OWN, PEER, BAD], { junk: 'no key' }), [])
    assert.deepEqual(snapshot([OWN, PEER]), Array(2).fill('lease that was not used is gone'))
    assert.deepEqual(snapshot([OWN, PEER, BAD], { junk: 'no key' }), [
      'lease refused: no key',
      'lease refused: it is bad',
    ])
    assert.equal(journal.status.counters.leasesRefused, 4)
  })
})
