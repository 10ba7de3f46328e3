import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { parsePrefix } from '../address/prefix.ts'
import { formatSubnetFile, parseSubnetFile, readSubnetFile, writeSubnetFile } from './subnet-file.ts'

const inet = { network: parsePrefix('10.5.0.0/16'), subnet: parsePrefix('10.5.99.0/24') }
const inet6 = { network: parsePrefix('fd80::/48'), subnet: parsePrefix('fd80:0:0:48::/64') }

const V4 = 'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.99.1/24\n'
const V6 = 'FLANNEL_IPV6_NETWORK=fd80::/48\nFLANNEL_IPV6_SUBNET=fd80:0:0:48::1/64\n'
const REST = 'FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n'

test('flannel’s lines in flannel’s order, for the enabled families', () => {
  const rest = { mtu: 1450, ipMasquerade: true }
  const format = (networks: object, subnets: object) => formatSubnetFile({ networks, subnets, ...rest })
  assert.equal(format({ inet: inet.network }, { inet: inet.subnet }), V4 + REST)
  assert.equal(format({ inet6: inet6.network }, { inet6: inet6.subnet }), V6 + REST)
  const networks = { inet: inet.network, inet6: inet6.network }
  assert.equal(format(networks, { inet: inet.subnet, inet6: inet6.subnet }), V4 + V6 + REST)
})

test('the subnets of before are read liberally', () => {
  const expected: [string, object][] = [
    [V4 + V6 + REST, { inet: '10.5.99.0/24', inet6: 'fd80:0:0:48::/64' }],
    ['# comment\n export FLANNEL_SUBNET="10.5.99.1/24" # mine\n', { inet: '10.5.99.0/24' }],
    ['FLANNEL_SUBNET=junk,10.5.99.1/24', { inet: '10.5.99.0/24' }],
    ['FLANNEL_SUBNET=10.5.99.1/24,10.5.98.1/24', {}],
    ['FLANNEL_SUBNET=fd80::1/64', {}],
    ['FLANNEL_SUBNET=', {}],
    ['', {}],
  ]
  for (const [text, subnets] of expected) assert.deepEqual(parseSubnetFile(text), subnets, text)
})

test('the file is readable by all, replaced in one step, and only when it changes', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'twr-'))
  t.after(() => rm(directory, { recursive: true }))
  const path = join(directory, 'run', 'flannel', 'subnet.env')
  const content = {
    networks: { inet: inet.network },
    subnets: { inet: inet.subnet },
    mtu: 1450,
    ipMasquerade: true,
  }

  assert.deepEqual(await readSubnetFile(path), {})
  assert.equal(await writeSubnetFile(path, content), true)
  assert.equal(await readFile(path, 'utf8'), V4 + REST)
  assert.equal((await stat(path)).mode & 0o777, 0o644)
  assert.deepEqual(await readSubnetFile(path), { inet: '10.5.99.0/24' })

  const before = await stat(path)
  assert.equal(await writeSubnetFile(path, content), false)
  assert.equal((await stat(path)).ino, before.ino)
  assert.equal(await writeSubnetFile(path, { ...content, mtu: 1400 }), true)
  assert.notEqual((await stat(path)).ino, before.ino)
  assert.deepEqual(await readdir(join(directory, 'run', 'flannel')), ['subnet.env'])
})
