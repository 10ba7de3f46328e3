import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parsePrefix } from '../address/prefix.ts'
import { containerAddresses, findNamespace, LabError, type LabFamily, planLab } from './topology.ts'

test('a lab has its names and addresses from its own name and a number', () => {
  const lab = planLab('x1', 2)
  assert.equal(lab.underlay.namespace, 'tweed-lab-x1-underlay')
  assert.deepEqual(
    lab.hosts.map(({ namespace, publicIp, subnet, container }) => [
      namespace,
      publicIp,
      subnet,
      container.namespace,
    ]),
    [
      ['tweed-lab-x1-host-A', '192.168.1.10', '10.10.10.0/24', 'tweed-lab-x1-c1'],
      ['tweed-lab-x1-host-B', '192.168.1.11', '10.10.11.0/24', 'tweed-lab-x1-c2'],
    ],
  )
})

test('an IPv6 lab has the same numbers, and one of both families both', () => {
  const inet = { publicIp: '192.168.1.11', subnet: '10.10.11.0/24' }
  const inet6 = { publicIp: 'fd00:192::11', subnet: 'fd00:10:10:11::/64' }
  const host = (family: LabFamily) => planLab('x1', 2, 'sqlite', family).hosts[1]
  assert.partialDeepStrictEqual(host('inet6'), {
    ...inet6,
    publicIps: { inet6: inet6.publicIp },
    subnets: { inet6: inet6.subnet },
  })
  assert.deepEqual(host('inet6')?.publicIps, { inet6: inet6.publicIp })
  assert.partialDeepStrictEqual(host('dual'), {
    ...inet,
    publicIps: { inet: inet.publicIp, inet6: inet6.publicIp },
    subnets: { inet: inet.subnet, inet6: inet6.subnet },
  })
})

test('the largest lab still has letters and addresses', () => {
  const last = planLab('x', 26).hosts.at(-1)
  assert.equal(last?.name, 'host-Z')
  assert.equal(last?.publicIp, '192.168.1.35')
  assert.equal(last?.subnet, '10.10.35.0/24')
})

test('names that could mean two labs, or a path, are refused', () => {
  for (const name of ['', 'a-b', 'A', '../x', 'a b', 'x'.repeat(21)])
    assert.throws(() => planLab(name, 2), LabError, name)
  for (const count of [0, 27, 1.5]) assert.throws(() => planLab('x', count), LabError, String(count))
})

test('the bridge has the first address of a subnet, the container the second', () => {
  assert.deepEqual(containerAddresses(parsePrefix('10.10.10.0/24')), {
    gateway: '10.10.10.1',
    container: '10.10.10.2',
  })
  assert.deepEqual(containerAddresses(parsePrefix('fd00:10:10:10::/64')), {
    gateway: 'fd00:10:10:10::1',
    container: 'fd00:10:10:10::2',
  })
})

test('a name that the lab does not have is answered with those that it has', () => {
  const lab = planLab('x', 1)
  assert.equal(findNamespace(lab, 'c1').path, '/run/netns/tweed-lab-x-c1')
  assert.throws(() => findNamespace(lab, 'c2'), /it has underlay, host-A, c1$/)
})
