import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type DockerOptionsRequest, formatDockerOptions } from './docker-options.ts'

const REQUEST: DockerOptionsRequest = {
  subnetFile: { FLANNEL_SUBNET: '10.1.74.1/24', FLANNEL_MTU: '1472', FLANNEL_IPMASQ: 'false' },
  individual: true,
  combined: 'DOCKER_OPTS',
  withoutMasquerade: false,
  existing: '',
}
const BIP = 'DOCKER_OPT_BIP="--bip=10.1.74.1/24"\n'
const IPMASQ = 'DOCKER_OPT_IPMASQ="--ip-masq=true"\n'
const MTU = 'DOCKER_OPT_MTU="--mtu=1472"\n'
const ALL = ' --bip=10.1.74.1/24 --ip-masq=true --mtu=1472'

test("the lines of flannel's script", () => {
  assert.equal(formatDockerOptions(REQUEST), `${BIP}${IPMASQ}${MTU}DOCKER_OPTS="${ALL}"\n`)
})

test('only the individual ones, only the combined one, under another name', () => {
  assert.equal(formatDockerOptions({ ...REQUEST, combined: undefined }), BIP + IPMASQ + MTU)
  assert.equal(formatDockerOptions({ ...REQUEST, individual: false, combined: 'X' }), `X="${ALL}"\n`)
})

test('what the combined variable holds already stays in front', () => {
  const text = formatDockerOptions({ ...REQUEST, individual: false, existing: '--icc=false' })
  assert.equal(text, `DOCKER_OPTS="--icc=false${ALL}"\n`)
})

test('docker masquerades when flannel does not, and says nothing of it on request', () => {
  const subnetFile = { ...REQUEST.subnetFile, FLANNEL_IPMASQ: 'true' }
  assert.match(formatDockerOptions({ ...REQUEST, subnetFile }), /--ip-masq=false/)
  assert.doesNotMatch(formatDockerOptions({ ...REQUEST, withoutMasquerade: true }), /ip-masq/)
})

test("IPv6 is no option of flannel's script", () => {
  const inet6 = { FLANNEL_IPV6_NETWORK: 'fd80::/48', FLANNEL_IPV6_SUBNET: 'fd80:0:0:48::1/64' }
  const subnetFile = { ...REQUEST.subnetFile, ...inet6 }
  assert.equal(formatDockerOptions({ ...REQUEST, subnetFile }), formatDockerOptions(REQUEST))
  const only = { ...REQUEST, subnetFile: { ...inet6, FLANNEL_MTU: '1472' }, individual: false }
  assert.equal(formatDockerOptions(only), 'DOCKER_OPTS=" --mtu=1472"\n')
})

test('what is not known is left out; what is wrong is an error', () => {
  assert.equal(formatDockerOptions({ ...REQUEST, subnetFile: {} }), 'DOCKER_OPTS=""\n')
  const subnetFile = { FLANNEL_IPMASQ: 'yes' }
  assert.throws(() => formatDockerOptions({ ...REQUEST, subnetFile }), /Invalid value of FLANNEL_IPMASQ: yes/)
})
