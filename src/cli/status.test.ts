import assert from 'node:assert/strict'
import { test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import type { PeerStatus, Status } from '../status/status.ts'
import { formatDuration, formatStatus, isInSync } from './status.ts'

function peer(n: number): Omit<PeerStatus, 'state' | 'why'> {
  return { subnet: `10.10.${n}.0/24`, ipv6Subnet: '', publicIp: `192.168.1.${n}`, publicIpv6: '' }
}

const IN_SYNC: Status = {
  version: '1.2.3',
  uptime: 61,
  network: '10.10.0.0/16',
  ipv6Network: '',
  backend: 'vxlan',
  externalInterface: 'eth0',
  publicIp: '192.168.1.10',
  publicIpv6: '',
  link: 'flannel.1',
  mac: '02:00:00:00:00:01',
  ipv6Link: '',
  ipv6Mac: '',
  mtu: 1450,
  lease: { subnet: '10.10.10.0/24', ipv6Subnet: '', expires: null },
  registry: { name: 'sqlite:/x', available: true, why: '' },
  peers: [{ ...peer(11), state: 'in sync', why: '' }],
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

const PEER = peer(12)

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
      lease: { subnet: '10.10.10.0/24', ipv6Subnet: '', expires: '2026-12-01T00:00:00.000Z' },
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

test('both families are shown, and no more than there is', () => {
  const dual: Status = {
    ...IN_SYNC,
    ipv6Network: 'fd00:10:10::/48',
    publicIpv6: 'fd00:192::10',
    ipv6Link: 'flannel-v6.1',
    ipv6Mac: '02:00:00:00:00:02',
    lease: { ...IN_SYNC.lease, ipv6Subnet: 'fd00:10:10:10::/64' },
    peers: [
      {
        ...peer(11),
        ipv6Subnet: 'fd00:10:10:11::/64',
        publicIpv6: 'fd00:192::11',
        state: 'in sync',
        why: '',
      },
    ],
  }
  const text = stripVTControlCharacters(formatStatus(dual))
  assert.match(text, /^host +192\.168\.1\.10 fd00:192::10 on eth0, in sync$/m)
  assert.match(text, /^lease +10\.10\.10\.0\/24 fd00:10:10:10::\/64, reserved$/m)
  assert.match(text, /^network +10\.10\.0\.0\/16 fd00:10:10::\/48, vxlan, MTU 1450$/m)
  assert.match(text, /^link +flannel\.1 02:00:00:00:00:01, flannel-v6\.1 02:00:00:00:00:02$/m)
  assert.match(text, /^10\.10\.11\.0\/24 fd00:10:10:11::\/64 +192\.168\.1\.11 fd00:192::11 +in sync$/m)
  const none = { link: '', mac: '', ipv6Link: '', ipv6Mac: '' }
  const only6 = { ...dual, ...none, publicIp: '', lease: { ...dual.lease, subnet: '' }, network: '' }
  const text6 = stripVTControlCharacters(formatStatus(only6))
  assert.match(text6, /^host +fd00:192::10 on/m)
  assert.match(text6, /^lease +fd00:10:10:10::\/64,/m)
  assert.match(text6, /^network +fd00:10:10::\/48,/m)
  assert.match(text6, /^link +-$/m)
})

test('a duration is its two largest units', () => {
  assert.equal(formatDuration(0.9), '0 s')
  assert.equal(formatDuration(61), '1 min 1 s')
  assert.equal(formatDuration(3600), '1 h 0 min')
  assert.equal(formatDuration(90_061), '1 d 1 h')
})
