/** The registry in etcd behind TLS and passwords, and when it is big. */

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { ipFromNumber, parseIp } from '../src/address/ip.ts'
import { EtcdClient } from '../src/lease/etcd/client.ts'
import { type EtcdOptions, EtcdRegistry } from '../src/lease/etcd/registry.ts'
import type { LeaseKey } from '../src/lease/lease.ts'
import { commit, put } from '../src/lease/etcd/transaction.ts'
import { Authority } from './authority.ts'
import { Etcd } from './etcd.ts'
import { acquire, snapshotWhere, subnetOf } from './registry-contract.ts'

const CONFIG = '{"Network": "10.3.0.0/16"}'
const HOST = parseIp('192.168.1.10')
const OTHER = parseIp('192.168.1.11')

function open(t: TestContext, options: EtcdOptions): EtcdRegistry {
  const registry = new EtcdRegistry(options)
  t.after(() => registry.close())
  return registry
}

/** A certificate authority, another one, and what the first has signed: PEM files. */
function certificates(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'twt-tls-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const authority = new Authority(directory, 'ca')
  const names = ['subjectAltName=IP:127.0.0.1']
  // etcd is a client of itself, too.
  const server = authority.sign('server', '/CN=server', [...names, 'extendedKeyUsage=serverAuth,clientAuth'])
  const client = authority.sign('client', '/CN=client', [...names, 'extendedKeyUsage=clientAuth'])
  return { ca: authority.cert, other: new Authority(directory, 'other').cert, server, client }
}

test('TLS: with a client certificate and the right authority, and not without', async (t) => {
  const { ca, other, server, client } = certificates(t)
  const flags = ['--cert-file', server.cert, '--key-file', server.key, '--trusted-ca-file', ca]
  const etcd = await Etcd.start(t, 'https', [...flags, '--client-cert-auth'])
  const endpoints = [etcd.endpoint]
  const registry = open(t, { endpoints, tls: { ca, ...client } })
  await registry.putConfig(CONFIG)
  const lease = await acquire(registry, HOST, t.signal)
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
  for (const tls of [{ ca }, { ca: other, ...client }, { ...client }, { ca: '/nonexistent', ...client }]) {
    await assert.rejects(open(t, { endpoints, tls }).readConfig(t.signal), { code: 'unavailable' })
  }
  assert.throws(() => new EtcdRegistry({ endpoints, tls: { cert: client.cert } }), { code: 'invalid' })
})

test('http is clear text, even with certificates at hand', async (t) => {
  const { ca, client } = certificates(t)
  const etcd = await Etcd.start(t)
  const registry = open(t, { endpoints: [etcd.endpoint], tls: { ca, ...client } })
  await registry.putConfig(CONFIG)
  assert.equal(await registry.readConfig(t.signal), CONFIG)
  const bare = open(t, { endpoints: [etcd.endpoint.replace('http://', '')] })
  assert.equal(await bare.readConfig(t.signal), CONFIG)
})

/** An etcd that wants a password; the user may touch what flanneld touches, and nothing else. */
async function withUsers(t: TestContext) {
  const etcd = await Etcd.start(t, 'http', ['--auth-token-ttl', '1'])
  await etcd.ctl('user', 'add', 'root:secret')
  await etcd.ctl('user', 'grant-role', 'root', 'root')
  await etcd.ctl('role', 'add', 'network')
  await etcd.ctl('role', 'grant-permission', 'network', 'read', '/coreos.com/network/config')
  const subnets = ['/coreos.com/network/subnets', '--prefix']
  await etcd.ctl('role', 'grant-permission', 'network', 'readwrite', ...subnets)
  await etcd.ctl('user', 'add', 'flannel:p:w')
  await etcd.ctl('user', 'grant-role', 'flannel', 'network')
  await etcd.ctl('put', '/coreos.com/network/config', CONFIG)
  await etcd.ctl('auth', 'enable')
  return etcd
}

test('user and password: with the rights that flanneld needs, also after the token expired', async (t) => {
  const etcd = await withUsers(t)
  const endpoints = [etcd.endpoint]
  const registry = open(t, { endpoints, login: { user: 'flannel', password: 'p:w' } })
  assert.equal(await registry.readConfig(t.signal), CONFIG)
  const lease = await acquire(registry, HOST, t.signal)
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
  // etcd looks for expired tokens once a second.
  await setTimeout(3500)
  const other = await acquire(registry, OTHER, t.signal)
  await snapshotWhere(events, ({ leases }) => leases.has(other.key))
  await setTimeout(3500)
  // Two that find at once that the token is gone.
  const late = open(t, { endpoints, login: { user: 'flannel', password: 'p:w' } })
  await Promise.all([
    registry.release(subnetOf(other)),
    registry.readConfig(t.signal),
    late.readConfig(t.signal),
  ])
  await snapshotWhere(events, ({ leases }) => !leases.has(other.key))
})

test('user and password: a wrong one, none, and a key that is not theirs', async (t) => {
  const etcd = await withUsers(t)
  const endpoints = [etcd.endpoint]
  const cases: [Partial<EtcdOptions>, RegExp][] = [
    [{ login: { user: 'flannel', password: 'wrong' } }, /authentication failed, invalid user ID or password/],
    [{}, /user name is empty/],
    [{ login: { user: 'flannel', password: 'p:w' }, prefix: '/other' }, /permission denied/],
  ]
  for (const [options, message] of cases) {
    const registry = open(t, { endpoints, ...options })
    await assert.rejects(registry.readConfig(t.signal), { code: 'unavailable', message })
    const { value } = await registry.watch(t.signal)[Symbol.asyncIterator]().next()
    assert.equal(value?.kind, 'unavailable')
    assert.match(value.reason, message)
  }
})

test('20,000 leases, more than 4 MB: read whole; one change is one, and many are few', {
  timeout: 60_000,
}, async (t) => {
  const etcd = await Etcd.start(t)
  const client = new EtcdClient({ endpoints: [etcd.endpoint] })
  t.after(() => client.close())
  const entry = (i: number, pad = 'x'.repeat(99)) => {
    const [second, third] = [128 + Math.floor(i / 256), i % 256]
    const publicIp = ipFromNumber(0xac100000n + BigInt(i), 'inet')
    const data = { VNI: 1, VtepMAC: `6e:f7:a4:d8:${second.toString(16)}:0${third % 10}`, Pad: pad }
    const value = JSON.stringify({ PublicIP: publicIp, BackendType: 'vxlan', BackendData: data })
    return put(`/coreos.com/network/subnets/10.${second}.${third}.0-24`, value, 0n)
  }
  // etcd takes 128 operations in one transaction.
  for (let i = 0; i < 20_000; i += 100) {
    await commit(
      client,
      [],
      Array.from({ length: 100 }, (_, k) => entry(i + k)),
      t.signal,
    )
  }

  const registry = open(t, { endpoints: [etcd.endpoint] })
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  const all = await snapshotWhere(events, () => true)
  assert.deepEqual([all.leases.size, all.malformed.size], [20_000, 0])
  const lease = await acquire(registry, HOST, t.signal, { config: '{"Network":"10.0.0.0/8"}' })
  const { leases, changed } = await snapshotWhere(events, () => true)
  assert.deepEqual([leases.size, changed], [20_001, new Set([lease.key])])

  // Many at once are few snapshots: each is a copy of all.
  let snapshots = 0
  const claims = Array.from({ length: 2000 }, (_, i) => entry(i, 'again'))
  const written = Promise.all(claims.map((claim) => commit(client, [], [claim], t.signal)))
  const seen = new Set<LeaseKey>()
  await snapshotWhere(events, (snapshot) => {
    snapshots++
    for (const key of snapshot.changed ?? []) seen.add(key)
    return seen.size === 2000
  })
  await written
  assert.ok(snapshots < 200, `${snapshots} snapshots`)
})
