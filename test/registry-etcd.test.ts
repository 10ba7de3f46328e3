/** The registry in etcd: the contract, and what flannel and etcdctl read and write there. */

import assert from 'node:assert/strict'
import { after, type TestContext, test } from 'node:test'
import { ipFromNumber, parseIp } from '../src/address/ip.ts'
import { parsePrefix } from '../src/address/prefix.ts'
import { parseNetworkConfig } from '../src/config/network-config.ts'
import { EtcdRegistry } from '../src/lease/etcd/registry.ts'
import { parseRegistryAddress, type RegistryCall } from '../src/lease/registry.ts'
import { Etcd } from './etcd.ts'
import {
  acquire,
  assertApart,
  type RegistryStore,
  registryContract,
  snapshotWhere,
  subnetOf,
} from './registry-contract.ts'

const CONFIG = '{"Network": "10.3.0.0/16"}'
const HOST = parseIp('192.168.1.10')
const OTHER = parseIp('192.168.1.11')

/** The contract's leases are short and expire when they like: not where others count leases. */
const ofContract = await Etcd.start({ after })
const shared = await Etcd.start({ after })

/** A network of its own in an etcd that tests share. */
function network(t: TestContext, etcd = shared) {
  const prefix = `/${t.name.replaceAll(/\W+/g, '-')}`
  const connect: RegistryStore['connect'] = (times) => {
    const registry = new EtcdRegistry({ endpoints: [etcd.endpoint], prefix, ...times })
    t.after(() => registry.close())
    return registry
  }
  const write = async (key: string, value: string, ...options: string[]): Promise<void> => {
    await etcd.ctl('put', ...options, `${prefix}/${key}`, '--', value)
  }
  return { prefix, connect, write }
}

async function createStore(t: TestContext): Promise<RegistryStore> {
  const { connect, write } = network(t, ofContract)
  return {
    connect: (times = { ttl: 60_000, renewMargin: 1000 }) => connect(times),
    writeEntry: (key, value) => write(`subnets/${key}`, value),
  }
}

registryContract('etcd', createStore)

/** As hexadecimal text, the form that etcdctl prints and takes. */
async function etcdLeaseOf(key: string): Promise<string> {
  const text = await shared.ctl('get', key, '-w', 'fields')
  return BigInt(/"Lease" : (\d+)/.exec(text)?.[1] ?? 0)
    .toString(16)
    .padStart(16, '0')
}

test('keys, values and time to live are those of flannel, to the letter', async (t) => {
  const { prefix, connect, write } = network(t)
  await write('config', '{ "Network": "10.10.0.0/16", "Backend": { "Type": "vxlan", "VNI": 1 } }')
  const registry = connect()
  const text = await registry.readConfig(t.signal)
  assert.equal(text, '{ "Network": "10.10.0.0/16", "Backend": { "Type": "vxlan", "VNI": 1 } }')
  const attributes = {
    publicIps: { inet: parseIp('10.199.0.1') },
    backendType: 'vxlan',
    backendData: { inet: { VNI: 1, VtepMAC: '6e:f7:a4:d8:2b:03' } },
  }
  const previous = { inet: parsePrefix('10.10.34.0/24') }
  await registry.acquire({ config: parseNetworkConfig(text), attributes, previous }, t.signal)
  const key = `${prefix}/subnets/10.10.34.0-24`
  assert.equal(
    await shared.ctl('get', '--prefix', `${prefix}/subnets`),
    `${key}\n{"PublicIP":"10.199.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"6e:f7:a4:d8:2b:03"}}`,
  )
  const ttl = await shared.ctl('lease', 'timetolive', await etcdLeaseOf(key))
  assert.match(ttl, /granted with TTL\(86400s\)/)
})

test('one etcd lease for good: acquired five times, renewed', async (t) => {
  const { prefix, connect } = network(t)
  const before = await shared.leaseCount()
  const registry = connect({ ttl: 60_000, renewMargin: 59_000 })
  const lease = await acquire(registry, HOST, t.signal)
  const key = `${prefix}/subnets/${lease.key}`
  const id = await etcdLeaseOf(key)
  for (let i = 0; i < 5; i++) await acquire(connect(), HOST, t.signal)
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  await snapshotWhere(events, () => true)
  const stop = new AbortController()
  const held = registry.hold(lease, stop.signal)
  const renewed = await snapshotWhere(events, ({ changed }) => changed?.has(lease.key) === true)
  assert.equal(renewed.leases.get(lease.key)?.created, lease.created)
  stop.abort()
  assert.equal(await held, 'released')
  assert.equal(await etcdLeaseOf(key), id)
  assert.equal(await shared.leaseCount(), before + 1)
  await registry.release(subnetOf(lease))
  assert.equal(await shared.leaseCount(), before)
})

test('no etcd lease is left by a host that finds no subnet, moves, or is given a reservation', async (t) => {
  const { connect } = network(t)
  const before = await shared.leaseCount()
  const registry = connect()
  const config = '{"Network": "10.3.0.0/24", "SubnetLen": 26}'
  for (const last of [1, 2, 3]) await acquire(registry, parseIp(`192.168.1.${last}`), t.signal, { config })
  await assert.rejects(acquire(registry, HOST, t.signal, { config }), { code: 'out-of-subnets' })
  assert.equal(await shared.leaseCount(), before + 3)
  const moved = await acquire(registry, parseIp('192.168.1.3'), t.signal, { config: CONFIG })
  assert.equal(await shared.leaseCount(), before + 3)
  await registry.reserve(moved.subnets, { inet: parseIp('192.168.1.3') })
  assert.equal(await shared.leaseCount(), before + 2)
})

test('a reservation that etcdctl wrote stays without a lease: taken, held, written', async (t) => {
  const { prefix, connect, write } = network(t)
  const before = await shared.leaseCount()
  await write('subnets/10.3.9.0-24', '{"PublicIP":"192.168.1.10"}')
  const registry = connect({ ttl: 2000, renewMargin: 1900 })
  const lease = await acquire(registry, HOST, t.signal)
  assert.deepEqual([lease.key, lease.expires], ['10.3.9.0-24', undefined])
  const held = registry.hold(lease, t.signal)
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
  await write('subnets/10.3.9.0-24', 'damaged')
  const mended = await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
  assert.equal(mended.leases.get(lease.key)?.backendType, 'vxlan')
  assert.equal(BigInt(`0x${await etcdLeaseOf(`${prefix}/subnets/10.3.9.0-24`)}`), 0n)
  assert.equal(await shared.leaseCount(), before)
  await registry.release(subnetOf(lease))
  assert.equal(await held, 'lost')
})

test('hold: an etcd lease that is revoked is lost; of a key that another took, nothing is left', async (t) => {
  const { prefix, connect, write } = network(t)
  const before = await shared.leaseCount()
  const registry = connect()
  const lease = await acquire(registry, HOST, t.signal)
  const key = `${prefix}/subnets/${lease.key}`
  const held = registry.hold(lease, t.signal)
  await shared.ctl('lease', 'revoke', await etcdLeaseOf(key))
  assert.equal(await held, 'lost')

  const again = await acquire(registry, HOST, t.signal, { previous: lease.subnets })
  assert.equal(again.key, lease.key)
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  await snapshotWhere(events, ({ leases }) => leases.has(lease.key))
  const heldAgain = registry.hold(again, t.signal)
  const taken = write(`subnets/${lease.key}`, '{"PublicIP":"192.168.1.11","PublicIPv6":null}')
  assert.equal(await heldAgain, 'lost')
  await taken
  assert.equal(await shared.leaseCount(), before)
  assert.match(await shared.ctl('get', key), /192\.168\.1\.11/)
})

test('hold: a key that flanneld of this host writes with a lease of its own is held with that', async (t) => {
  const { prefix, connect, write } = network(t)
  const registry = connect()
  const lease = await acquire(registry, HOST, t.signal)
  const stop = new AbortController()
  const held = registry.hold(lease, stop.signal)
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  await snapshotWhere(events, () => true)
  const granted = /lease (\w+) granted/.exec(await shared.ctl('lease', 'grant', '600'))?.[1] ?? ''
  await write(`subnets/${lease.key}`, '{"PublicIP":"192.168.1.10","PublicIPv6":null}', `--lease=${granted}`)
  await snapshotWhere(events, ({ leases }) => leases.get(lease.key)?.backendType === '')
  await snapshotWhere(events, ({ leases }) => leases.get(lease.key)?.backendType === 'vxlan')
  assert.equal(await etcdLeaseOf(`${prefix}/subnets/${lease.key}`), granted)
  stop.abort()
  assert.equal(await held, 'released')
})

test('strangers under the prefix disturb nobody', async (t) => {
  const { connect, write } = network(t)
  await write('config', CONFIG)
  const registry = connect()
  const lease = await acquire(registry, HOST, t.signal)
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  await snapshotWhere(events, ({ leases }) => leases.size === 1)
  const value =
    '{"PublicIP":"192.168.1.11","PublicIPv6":"fd00::11","BackendType":"vxlan","BackendData":{"VNI":1}}'
  await write('subnets/junk', 'x')
  await write('subnets/10.3.200.0-24', '{"PublicIP"')
  await write('subnets/10.3.201.0-24&fd80:0:0:48::-64', value)
  await write('subnets/10.3.202.7-24', value)
  await write('subnets-of-old/10.3.203.0-24', value)
  await write('subnet/10.3.204.0-24', value)
  const expected = [lease.key, '10.3.201.0-24&fd80:0:0:48::-64', '10.3.202.0-24']
  const { leases, malformed } = await snapshotWhere(events, (snapshot) => snapshot.leases.size === 3)
  assert.deepEqual(new Set(leases.keys()), new Set(expected))
  assert.deepEqual([...malformed.keys()], ['junk', '10.3.200.0-24'])
  // The same of a range as of a watch; and one subnet under two spellings is the older one's.
  await write('subnets/10.3.202.0-24', '{"PublicIP":"192.168.1.12"}')
  const twice = await snapshotWhere(events, (snapshot) => snapshot.malformed.size === 3)
  const late = await snapshotWhere(connect().watch(t.signal)[Symbol.asyncIterator](), () => true)
  for (const snapshot of [twice, late]) {
    assert.deepEqual(new Set(snapshot.leases.keys()), new Set(expected))
    assert.equal(snapshot.leases.get(subnetKey('10.3.202.0-24', snapshot.leases))?.publicIps.inet, OTHER)
    assert.match(snapshot.malformed.get('10.3.202.0-24') ?? '', /another spelling/)
  }
})

function subnetKey<K extends string>(text: string, keys: ReadonlyMap<K, unknown>): K {
  const key = [...keys.keys()].find((each) => each === text)
  assert.ok(key !== undefined)
  return key
}

test('fifty hosts that ask at once get subnets apart', async (t) => {
  const { connect } = network(t)
  const hosts = Array.from({ length: 50 }, (_, i) => ipFromNumber(0xc0a80200n + BigInt(i), 'inet'))
  const leases = await Promise.all(hosts.map((host) => acquire(connect(), host, t.signal)))
  assertApart(leases)
})

test('fifty hosts of a dual-stack network share neither an IPv4 nor an IPv6 subnet', async (t) => {
  const { connect } = network(t)
  const before = await shared.leaseCount()
  const events = connect().watch(t.signal)[Symbol.asyncIterator]()
  const text = '{"Network":"10.3.0.0/16","EnableIPv6":true,"IPv6Network":"fd80::/48"}'
  const config = parseNetworkConfig(text)
  const acquired = Array.from({ length: 50 }, (_, i) => {
    const publicIps = { inet: parseIp(`192.168.2.${i}`), inet6: parseIp(`fd00::${i}`) }
    const attributes = { publicIps, backendType: 'vxlan', backendData: {} }
    return connect().acquire({ config, attributes, previous: {} }, t.signal)
  })
  // Two with one IPv4 subnet are never written, not even for the moment until the younger gives way.
  await snapshotWhere(events, ({ leases }) => {
    const subnets = [...leases.values()].map(subnetOf)
    assert.equal(new Set(subnets).size, subnets.length)
    return leases.size === 50
  })
  const leases = await Promise.all(acquired)
  for (const family of ['inet', 'inet6'] as const) {
    const subnets = leases.flatMap((lease) => lease.subnets[family] ?? [])
    assert.equal(new Set(subnets).size, 50)
  }
  assert.equal(await shared.leaseCount(), before + 50)
})

test('a registry is named by its endpoints', () => {
  assert.deepEqual(parseRegistryAddress('etcd:http://h1:2379,https://h2:2379'), {
    kind: 'etcd',
    endpoints: ['http://h1:2379', 'https://h2:2379'],
  })
  for (const endpoint of ['', 'h1:port', 'ftp://h1', 'http://', 'http://h1:2379/path', 'http://h1:port']) {
    assert.throws(() => new EtcdRegistry({ endpoints: [endpoint] }), { code: 'invalid' })
  }
})

/** A registry, and the calls that it made. */
function observed(t: TestContext, prefix: string) {
  const calls: string[] = []
  const observe = ({ operation }: RegistryCall) => calls.push(operation)
  const registry = new EtcdRegistry({ endpoints: [shared.endpoint], prefix, observe })
  t.after(() => registry.close())
  return { registry, calls }
}

test('what is asked for beforehand is read once, for config, claim and watch', async (t) => {
  const { prefix, connect, write } = network(t)
  await write('config', CONFIG)
  const other = await acquire(connect(), OTHER, t.signal)
  const { registry, calls } = observed(t, prefix)
  registry.prepare(t.signal)
  assert.equal(await registry.readConfig(t.signal), CONFIG)
  const lease = await acquire(registry, HOST, t.signal)
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  const { leases, config } = await snapshotWhere(events, () => true)
  assert.deepEqual([new Set(leases.keys()), config], [new Set([other.key, lease.key]), CONFIG])
  assert.deepEqual(calls, ['Range', 'Range', 'LeaseGrant', 'Txn'])
})

test('a config that was asked for beforehand is told once', async (t) => {
  const { prefix, write } = network(t)
  const { registry } = observed(t, prefix)
  await write('config', 'damaged')
  registry.prepare(t.signal)
  assert.equal(await registry.readConfig(t.signal), 'damaged')
  await write('config', CONFIG)
  assert.equal(await registry.readConfig(t.signal), CONFIG)
  await acquire(registry, HOST, t.signal)
  const events = registry.watch(t.signal)[Symbol.asyncIterator]()
  assert.equal((await snapshotWhere(events, () => true)).config, CONFIG)
})

test('what was asked for beforehand and is old does no harm', async (t) => {
  const { prefix, connect, write } = network(t)
  const { registry, calls } = observed(t, prefix)
  registry.prepare(t.signal)
  assert.equal(await registry.readConfig(t.signal), undefined)
  await write('config', CONFIG)
  assert.equal(await registry.readConfig(t.signal), CONFIG)
  // Two subnets: when one is gone meanwhile, the other is taken.
  const config = '{"Network": "10.3.0.0/16", "SubnetMin": "10.3.1.0", "SubnetMax": "10.3.2.0"}'
  registry.prepare(t.signal)
  assert.equal(await registry.readConfig(t.signal), CONFIG)
  const first = await acquire(connect(), OTHER, t.signal, { config })
  const previous = first.subnets
  const second = await acquire(registry, HOST, t.signal, { config, previous })
  assertApart([first, second])
  assert.equal(calls.filter((operation) => operation === 'Txn').length, 2)
})
