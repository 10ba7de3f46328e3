import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { AGENT_FLAGS } from './agent-flags.ts'
import { readSettings, type Settings } from './agent-settings.ts'

function settings(argv: readonly string[], variables: Record<string, string> = {}): Settings {
  const read = readSettings(argv, variables)
  assert.ok(typeof read === 'object')
  return read
}

test("without flags, flanneld's defaults", () => {
  const { agent, registry, healthz, renewMargin, setNetworkUnavailable } = settings([])
  assert.deepEqual(registry, {
    registry: '',
    endpoints: 'http://127.0.0.1:4001,http://127.0.0.1:2379',
    prefix: '/coreos.com/network',
    ca: '',
    cert: '',
    key: '',
    user: '',
    password: '',
    kubernetes: {
      apiUrl: '',
      kubeconfig: '',
      annotationPrefix: 'flannel.alpha.coreos.com',
      netConfig: '/etc/kube-flannel/net-conf.json',
    },
  })
  assert.equal(setNetworkUnavailable, true)
  assert.equal(agent.subnetFile, '/run/flannel/subnet.env')
  assert.deepEqual(agent.firewall, { masquerade: false, forward: true, randomFully: true, interval: 5000 })
  assert.deepEqual([healthz, renewMargin], [undefined, 3_600_000])
})

test("a unit file of flanneld's is understood, in each of Go's forms and out of the environment", () => {
  const asFlags = settings([
    '-etcd-endpoints=https://10.0.0.1:2379,https://10.0.0.2:2379',
    '--etcd-prefix',
    '/flannel/network',
    '-etcd-cafile=/ca.pem',
    '-etcd-certfile=/cert.pem',
    '-etcd-keyfile=/key.pem',
    '-etcd-username=flannel',
    '-etcd-password=secret',
    '--iface=eth1',
    '-ip-masq',
    '--iptables-forward-rules=false',
    '--ip-masq-fully-random-disable=true',
    '-iptables-resync=30',
    '-healthz-port=8081',
    '-healthz-ip=127.0.0.1',
    '-subnet-lease-renew-margin=120',
    '-v=1',
    '-kube-annotation-prefix=flannel.alpha.coreos.com',
    '-kube-subnet-mgr=0',
  ])
  const asEnvironment = settings([], {
    FLANNELD_ETCD_ENDPOINTS: 'https://10.0.0.1:2379,https://10.0.0.2:2379',
    FLANNELD_ETCD_PREFIX: '/flannel/network',
    FLANNELD_ETCD_CAFILE: '/ca.pem',
    FLANNELD_ETCD_CERTFILE: '/cert.pem',
    FLANNELD_ETCD_KEYFILE: '/key.pem',
    FLANNELD_ETCD_USERNAME: 'flannel',
    FLANNELD_ETCD_PASSWORD: 'secret',
    FLANNELD_IFACE: 'eth1',
    FLANNELD_IP_MASQ: 'true',
    FLANNELD_IPTABLES_FORWARD_RULES: 'false',
    FLANNELD_IP_MASQ_FULLY_RANDOM_DISABLE: 'true',
    FLANNELD_IPTABLES_RESYNC: '30',
    FLANNELD_HEALTHZ_PORT: '8081',
    FLANNELD_HEALTHZ_IP: '127.0.0.1',
    FLANNELD_SUBNET_LEASE_RENEW_MARGIN: '120',
    FLANNELD_V: '1',
  })
  assert.deepEqual(asFlags, asEnvironment)
  assert.deepEqual(asFlags.healthz, { host: '127.0.0.1', port: 8081 })
  assert.deepEqual(asFlags.agent.firewall, {
    masquerade: true,
    forward: false,
    randomFully: false,
    interval: 30_000,
  })
  assert.equal(asFlags.registry.prefix, '/flannel/network')
  assert.equal(asFlags.verbose, true)
  assert.equal(settings(['-ip-blackhole-route']).agent.blackhole, true)
})

test("flannel's flag for Kubernetes, and those that go with it", () => {
  const { registry, setNetworkUnavailable } = settings([
    '--kube-subnet-mgr',
    '--kube-api-url=https://10.0.0.1:6443',
    '--kubeconfig-file=/kubeconfig',
    '--kube-annotation-prefix=org.com',
    '--net-config-path=/net-conf.json',
    '--set-node-network-unavailable=false',
  ])
  assert.equal(registry.registry, 'kubernetes:')
  assert.equal(setNetworkUnavailable, false)
  assert.deepEqual(registry.kubernetes, {
    apiUrl: 'https://10.0.0.1:6443',
    kubeconfig: '/kubeconfig',
    annotationPrefix: 'org.com',
    netConfig: '/net-conf.json',
  })
  assert.equal(settings([], { FLANNELD_KUBE_SUBNET_MGR: 'true' }).registry.registry, 'kubernetes:')
  assert.equal(settings(['-kube-subnet-mgr', '-registry=kubernetes:']).registry.registry, 'kubernetes:')
  assert.equal(settings(['-kube-subnet-mgr=false', '-registry=sqlite:x']).registry.registry, 'sqlite:x')
})

test('a flag on the command line goes before the environment', () => {
  assert.deepEqual(settings(['-iface=eth0'], { FLANNELD_IFACE: 'eth1' }).agent.interface.ifaces, ['eth0'])
})

test('a public IP of each family is taken, and -iface-can-reach of either', () => {
  const read = (...argv: string[]) => settings(argv).agent.interface
  assert.deepEqual(read('-public-ip=192.0.2.1', '-public-ipv6=FD00::0:1').publicIps, {
    inet: '192.0.2.1',
    inet6: 'fd00::1',
  })
  assert.deepEqual(read('-public-ipv6=fd00::1').publicIps, { inet6: 'fd00::1' })
  assert.deepEqual(read().publicIps, {})
  for (const ip of ['192.0.2.1', 'fd00::1']) assert.equal(read(`-iface-can-reach=${ip}`).canReach, ip)
})

test('every flag of flanneld is taken', () => {
  // flannel 0.28's own list, and klog's three.
  const flags =
    'etcd-endpoints etcd-prefix etcd-keyfile etcd-certfile etcd-cafile etcd-username etcd-password iface iface-regex ' +
    'iface-can-reach subnet-file public-ip public-ipv6 subnet-lease-renew-margin ip-masq ip-masq-fully-random-disable ' +
    'kube-subnet-mgr kube-api-url kube-annotation-prefix kubeconfig-file net-config-path set-node-network-unavailable ' +
    'healthz-ip healthz-port iptables-resync iptables-forward-rules ip-blackhole-route version v vmodule log_backtrace_at'
  for (const flag of flags.split(' ')) assert.ok(Object.hasOwn(AGENT_FLAGS, flag), flag)
})

test('help and version are answered whatever the environment says', () => {
  assert.equal(readSettings(['-version'], { FLANNELD_HEALTHZ_PORT: 'x' }), 'version')
  assert.equal(readSettings(['--help'], { FLANNELD_HEALTHZ_PORT: 'x' }), 'help')
})

describe('what cannot be is refused, with the flag, its value and what is allowed', () => {
  for (const [argv, message] of [
    [
      ['-subnet-lease-renew-margin=0'],
      /-subnet-lease-renew-margin is 0: it must be a whole number from 1 to 1439/,
    ],
    [['-healthz-port=70000'], /-healthz-port is 70000: .* from 0 to 65535/],
    [['-iptables-resync=0'], /-iptables-resync is 0/],
    [['-public-ip=eth0'], /-public-ip: "eth0" is not an IP address/],
    [['-iface-regex=('], /-iface-regex: Invalid regular expression/],
    [['-kube-subnet-mgr', '-registry=sqlite:x'], /-kube-subnet-mgr is the same as -registry=kubernetes:/],
    [['-public-ip=fd00::1'], /-public-ip is fd00::1: it must be an IPv4 address/],
    [['-public-ipv6=192.0.2.1'], /-public-ipv6 is 192\.0\.2\.1: it must be an IPv6 address/],
    [['-iface-can-reach=fd00::/64'], /-iface-can-reach: "fd00::\/64" is not an IP address/],
  ] as const) {
    test(argv.join(' '), () => assert.throws(() => readSettings(argv, {}), { name: 'FlagError', message }))
  }
})
