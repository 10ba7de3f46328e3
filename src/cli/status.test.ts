import assert from 'node:assert/strict'
import { test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import type { Status } from '../status/status.ts'
import { formatDuration, formatStatus, isInSync } from './status.ts'

const IN_SYNC: Status = {
  version: '1.2.3',
  uptime: 61,
  network: '10.10.0.0/16',
  backend: 'vxlan',
  externalInterface: 'eth0',
  publicIp: '192.168.1.10',
  link: 'flannel.1',
  mac: '02:00:00:00:00:01',
  mtu: 1450,
  lease: { subnet: '10.10.10.0/24', expires: null },
  registry: { name: 'sqlite:/x', available: true, why: '' },
  peers: [{ subnet: '10.10.11.0/24', publicIp: '192.168.1.11', state: 'in sync', why: '' }],
  problems: [],
  ready: true,
  counters: {
    turns: 1,
    operations: 6,
    failures: 0,
    repaired: 0,
    missesAnswered: 0,
    missesRefused: 0,
    leasesRefused: 0,
    overruns: 0,
    disconnects: 0,
    milliseconds: 0,
  },
}

const PEER = { subnet: '10.10.12.0/24', publicIp: '192.168.1.12' }

test('in sync is: ready, the registry answers, nothing of our own and no peer is wrong', () => {
  assert.ok(isInSync(IN_SYNC))
  assert.ok(isInSync({ ...IN_SYNC, peers: [{ ...PEER, state: 'ignored', why: 'another backend' }] }))
  assert.ok(!isInSync({ ...IN_SYNC, ready: false }))
  assert.ok(!isInSync({ ...IN_SYNC, problems: ['link flannel.1: EPERM'] }))
  assert.ok(!isInSync({ ...IN_SYNC, registry: { name: 'sqlite:/x', available: false, why: 'locked' } }))
  for (const state of ['failed', 'refused'] as const) {
    assert.ok(!isInSync({ ...IN_SYNC, peers: [...IN_SYNC.peers, { ...PEER, state, why: 'x' }] }), state)
  }
})

test('what is not in sync is said with its reason', () => {
  const text = stripVTControlCharacters(
    formatStatus({
      ...IN_SYNC,
      lease: { subnet: '10.10.10.0/24', expires: '2026-12-01T00:00:00.000Z' },
      registry: { name: 'sqlite:/x', available: false, why: 'database is locked' },
      peers: [{ ...PEER, state: 'refused', why: 'VtepMAC 01:00:5e:00:00:01 is not a unicast address' }],
      problems: ['link flannel.1: EPERM'],
    }),
  )
  assert.match(text, /^lease +10\.10\.10\.0\/24, until 2026-12-01T00:00:00\.000Z$/m)
  assert.match(text, /^registry +sqlite:\/x: database is locked$/m)
  assert.match(
    text,
    /^10\.10\.12\.0\/24 +192\.168\.1\.12 +refused +VtepMAC 01:00:5e:00:00:01 is not a unicast address$/m,
  )
  assert.match(text, /^not as desired: link flannel\.1: EPERM$/m)
})

test('a duration is its two largest units', () => {
  assert.equal(formatDuration(0.9), '0 s')
  assert.equal(formatDuration(61), '1 min 1 s')
  assert.equal(formatDuration(3600), '1 h 0 min')
  assert.equal(formatDuration(90_061), '1 d 1 h')
})
