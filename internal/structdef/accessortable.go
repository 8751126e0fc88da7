package structdef

import "mycore/internal/target"

const sourceAccessor = target.SourceAccessor

// Steps that several accessors share. Paths are those of the sources where
// they differ from mycore's names.
var (
	stSecurity = accStep{structName: "THD", name: "security_ctx", kind: KindPointer}
	stDiag     = accStep{structName: "THD", name: "stmt_da", path: "m_stmt_da", kind: KindPointer}
	stVio      = accStep{structName: "THD", name: "net.vio", kind: KindPointer}
	stMysys    = accStep{structName: "THD", name: "mysys_var", kind: KindPointer}
)

func thdField(name string, k Kind) accStep { return accStep{structName: "THD", name: name, kind: k} }

func (w accStep) as(path string) accStep { w.path = path; return w }

// givesPair: the address of {text, length}, a LEX_STRING (include/m_string.h,
// lex_string.h): the length follows the pointer.
func givesPair(name, path string) []accGive {
	return []accGive{
		{how: byReturn, address: true, steps: []accStep{thdField(name+".str", KindPointer).as(path + ".str").sized(8)}},
		{how: byReturn, address: true, plus: 8, steps: []accStep{thdField(name+".length", KindUint).as(path + ".length").sized(8)}},
	}
}

func (w accStep) sized(n uint64) accStep { w.size = n; return w }

func givesValue(steps ...accStep) []accGive { return []accGive{{how: byReturn, steps: steps}} }

func givesAddress(w accStep) []accGive {
	return []accGive{{how: byReturn, address: true, steps: []accStep{w}}}
}

// contextGives is what the function that describes a session for InnoDB's monitor
// prints: "MySQL thread id %u, OS thread handle %lu, query id %lu ...".
// MariaDB prints the low half of its 64-bit ids.
var contextGives = []accGive{
	{how: byFormat, text: "thread id", narrow: true, steps: []accStep{thdField("thread_id", KindUint)}, sizes: []int{4, 8}},
	{how: byFormat, text: "OS thread handle", steps: []accStep{thdField("real_id", KindUint)}, sizes: []int{8}},
	{how: byFormat, text: "query id", steps: []accStep{thdField("query_id", KindUint)}, sizes: []int{8}},
}

// stageGives is how a state is entered: the name and the key of a PSI_stage_info
// {m_key 0, m_name 8} are copied (include/mysql/psi/psi.h, mysql_stage.h).
func stageGives(arg int) []accGive {
	return []accGive{
		{how: byCopied, arg: arg, con: 8, steps: []accStep{thdField("proc_info", KindPointer)}},
		{how: byCopied, arg: arg, con: 0, steps: []accStep{thdField("stage_key", KindUint).as("m_current_stage_key")}, sizes: []int{4}},
	}
}

// mutexCalls are what the inlined mysql_mutex_lock and mysql_mutex_unlock end
// in (include/mysql/psi/mysql_mutex.h).
var mutexCalls = []string{"pthread_mutex_lock", "pthread_mutex_unlock"}

var pthreadSelf = []string{"pthread_self"}

// accessors says which exported function gives which fields. Sources: MySQL
// 5.6.41, MySQL 9.7.2, MariaDB 10.5.23, 10.11.18 and 11.8.6; the file is that
// of the function in those trees.
var accessors = []accessor{
	{symbols: []string{"thd_get_thread_id", "_Z13thd_thread_idPK3THD"}, source: "sql/sql_class.cc",
		gives: []accGive{{how: byReturn, steps: []accStep{thdField("thread_id", KindUint)}, sizes: []int{4, 8}}}},
	{symbols: []string{"thd_query_id"}, product: "mariadb", source: "sql/sql_class.cc",
		gives: []accGive{{how: byReturn, steps: []accStep{thdField("query_id", KindUint)}, sizes: []int{8}}}},
	{symbols: []string{"thd_query_string"}, source: "sql/sql_class.cc",
		gives: givesPair("query", "query_string.string")},
	{symbols: []string{"_Z16thd_query_unsafeP3THD"}, product: "mysql", source: "sql/sql_thd_api.cc",
		gives: []accGive{
			{how: byReturn, steps: []accStep{thdField("query.str", KindPointer).as("m_query_string.str")}},
			{how: bySecond, steps: []accStep{thdField("query.length", KindUint).as("m_query_string.length")}, sizes: []int{8}},
		}},
	{symbols: []string{"thd_current_db"}, product: "mariadb", source: "sql/sql_class.cc", gives: givesPair("db", "db")},
	{symbols: []string{"thd_current_command"}, product: "mariadb", source: "sql/sql_class.cc",
		gives: []accGive{{how: byReturn, steps: []accStep{thdField("command", KindEnum).as("m_command")}, sizes: []int{4}}}},
	// The copy of the name is what my_strndup returns, its length comes from the
	// argument; the mutex around both is the only one.
	{symbols: []string{"_ZN3THD6set_dbERK17MYSQL_LEX_CSTRING", "_ZN3THD6set_dbEPK25st_mysql_const_lex_string"}, source: "sql/sql_class.cc", gives: []accGive{
		{how: byResult, callee: []string{"my_strndup", "_Z10my_strndupjPKcmi"}, steps: []accStep{thdField("db.str", KindPointer)}},
		{how: byCopied, arg: 1, con: 8, steps: []accStep{thdField("db.length", KindUint)}, sizes: []int{8}},
		{how: byPassed, arg: 0, callee: mutexCalls, address: true, steps: []accStep{thdField("LOCK_thd_data", KindStruct)}}}},
	{symbols: []string{"_ZN3THD9set_queryERK11CSET_STRING"}, product: "mysql", source: "sql/sql_class.cc, before 5.7", gives: []accGive{
		{how: byPassed, arg: 0, callee: mutexCalls, address: true, steps: []accStep{thdField("LOCK_thd_data", KindStruct)}}}},
	{symbols: []string{"_ZN3THD9set_queryE17MYSQL_LEX_CSTRING"}, product: "mysql", source: "sql/sql_class.cc, 8.0 on", gives: []accGive{
		{how: byPassed, arg: 0, callee: mutexCalls, address: true, steps: []accStep{thdField("LOCK_thd_query", KindStruct)}}}},
	{symbols: []string{"_ZN3THD11set_commandE19enum_server_command"}, source: "sql/sql_class.cc",
		gives: []accGive{{how: byStored, arg: 1, steps: []accStep{thdField("command", KindEnum).as("m_command")}, sizes: []int{4}}}},
	{symbols: []string{"thd_security_context", "thd_get_error_context_description"}, depth: 0, steps: 300, product: "mysql", source: "sql/sql_class.cc",
		gives: contextGives},
	{symbols: []string{"thd_get_error_context_description"}, steps: 300, product: "mariadb", source: "sql/sql_class.cc", gives: contextGives},
	{symbols: []string{"thd_security_context"}, steps: 300, product: "mysql", source: "sql/sql_class.cc", gives: []accGive{
		{how: byPassed, callee: []string{"_ZNK16Security_context4hostEv", "_ZN16Security_context8get_hostEv"}, arg: 0, address: true,
			steps: []accStep{thdField("main_security_ctx", KindStruct)}}}},
	{symbols: []string{"thd_get_error_context_description"}, steps: 300, product: "mariadb", source: "sql/sql_class.cc", gives: []accGive{
		{how: byTested, con: 0, steps: []accStep{thdField("main_security_ctx.host", KindPointer)}}}},
	{symbols: []string{"_ZN3THD13store_globalsEv"}, source: "sql/sql_class.cc", gives: []accGive{
		{how: byResult, callee: pthreadSelf, steps: []accStep{thdField("real_id", KindUint)}, sizes: []int{8}}}},
	{symbols: []string{"_ZN3THD13store_globalsEv"}, product: "mariadb", source: "sql/sql_class.cc", gives: []accGive{
		{how: byResult, callee: []string{"_my_thread_var"}, steps: []accStep{stMysys}},
		// gettid is system call 186 of Linux on x86-64 (arch/x86/entry/syscalls/syscall_64.tbl)
		{how: byResult, callee: []string{"syscall"}, con: 186, steps: []accStep{thdField("os_thread_id", KindUint)}, sizes: []int{4}},
		{how: byStored, arg: 0, steps: []accStep{thdField("net.thd", KindPointer)}},
	}},
	{symbols: []string{"thd_current_status"}, product: "mariadb", source: "sql/sql_class.cc", gives: []accGive{
		{how: byReturn, steps: []accStep{stDiag, {structName: "Diagnostics_area", name: "sql_errno", path: "m_sql_errno", kind: KindUint}}, sizes: []int{4}},
		{how: byChecked, con: 5, steps: []accStep{stDiag, {structName: "Diagnostics_area", name: "m_status", kind: KindEnum}}, sizes: []int{4}}}},
	{symbols: []string{"_Z12thd_is_errorPK3THD"}, product: "mysql", source: "sql/sql_thd_api.cc", gives: []accGive{
		{how: byTested, con: 3, steps: []accStep{stDiag, {structName: "Diagnostics_area", name: "m_status", kind: KindEnum}}, sizes: []int{4}}}},
	{symbols: []string{"thd_mdl_context"}, product: "mariadb", source: "sql/sql_class.cc", gives: givesAddress(thdField("mdl_context", KindStruct))},
	{symbols: []string{"thd_client_host"}, product: "mariadb", source: "sql/sql_class.cc",
		gives: givesValue(stSecurity, accStep{structName: "Security_context", name: "host", kind: KindPointer})},
	{symbols: []string{"thd_user_name"}, product: "mariadb", source: "sql/sql_class.cc",
		gives: givesValue(stSecurity, accStep{structName: "Security_context", name: "user", kind: KindPointer})},
	{symbols: []string{"thd_client_ip"}, product: "mariadb", source: "sql/sql_class.cc",
		gives: givesValue(stSecurity, accStep{structName: "Security_context", name: "ip", kind: KindPointer})},
	{symbols: []string{"_Z24thd_get_security_contextP3THDPP16Security_context"}, product: "mysql", source: "sql/auth/service_security_context.cc",
		gives: []accGive{{how: byOut, arg: 1, steps: []accStep{stSecurity}}}},
	securityText("_ZNK16Security_context4userEv", "user", "m_user"),
	securityText("_ZNK16Security_context4hostEv", "host", "m_host"),
	securityText("_ZNK16Security_context2ipEv", "ip", "m_ip"),
	{symbols: []string{"thd_killed"}, product: "mysql", source: "sql/sql_class.cc",
		gives: []accGive{{how: byReturn, steps: []accStep{thdField("killed", KindEnum)}, sizes: []int{4}}}},
	{symbols: []string{"thd_kill_level"}, product: "mariadb", steps: 2000, source: "sql/sql_class.cc",
		gives: []accGive{{how: byTested, con: 0, steps: []accStep{thdField("killed", KindEnum)}, sizes: []int{4}}}},
	{symbols: []string{"thd_start_utime"}, product: "mariadb", source: "sql/sql_class.cc", gives: []accGive{
		{how: byScaled, con: 1_000_000, steps: []accStep{thdField("start_time", KindInt)}, sizes: []int{8}},
		{how: byRest, con: 1_000_000, steps: []accStep{thdField("start_time_usec", KindUint).as("start_time_sec_part")}, sizes: []int{8}}}},
	{symbols: []string{"thd_storage_lock_wait"}, only: "_ZN3THD13inc_lock_usecEy", depth: 1, source: "sql/sql_class.cc, 8.0 on",
		gives: []accGive{{how: byAdded, arg: 1, steps: []accStep{thdField("m_lock_usec", KindUint)}, sizes: []int{8}}}},
	{symbols: []string{"thd_storage_lock_wait"}, not: "_ZN3THD13inc_lock_usecEy", source: "sql/sql_class.cc",
		gives: []accGive{{how: byAdded, arg: 1, steps: []accStep{thdField("utime_after_lock", KindUint)}, sizes: []int{8}}}},
	{symbols: []string{"thd_get_ha_data", "thd_ha_data"}, depth: 1, not: "_ZN3THD13inc_lock_usecEy", source: "sql/sql_class.cc, before the array grew", gives: []accGive{
		{how: byBase, steps: []accStep{thdField("ha_data", KindArray)}, address: true},
		{how: bySlot, arg: 1, steps: []accStep{{structName: "handlerton", name: "slot", kind: KindUint}}, sizes: []int{4}}}},
	{symbols: []string{"vio_timeout", "_Z11vio_timeoutP3Vioji"}, source: "vio/viosocket.c", gives: []accGive{
		{how: byUnless, arg: 1, steps: []accStep{{structName: "Vio", name: "write_timeout", kind: KindInt}}, sizes: []int{4}},
		{how: byIf, arg: 1, steps: []accStep{{structName: "Vio", name: "read_timeout", kind: KindInt}}, sizes: []int{4}}}},
	{symbols: []string{"thd_is_connected"}, product: "mariadb", source: "sql/sql_class.cc", gives: []accGive{
		{how: byTested, con: 0, steps: []accStep{thdField("system_thread", KindEnum)}, sizes: []int{4}},
		{how: byPassed, callee: []string{"*"}, arg: 0, steps: []accStep{stVio}}}},
	{symbols: []string{"_Z10thd_get_fdP3THD"}, product: "mysql", not: "_ZN3THD20get_protocol_classicEv", source: "sql/sql_class.cc", gives: givesValue(stVio,
		accStep{structName: "Vio", name: "mysql_socket.fd", kind: KindInt})},
	{symbols: []string{"_Z22thd_get_net_read_writeP3THD"}, product: "mysql", not: "_ZN3THD20get_protocol_classicEv", source: "sql/sql_class.cc",
		gives: []accGive{{how: byReturn, steps: []accStep{thdField("net.reading_or_writing", KindUint)}, sizes: []int{1}}}},
	{symbols: []string{"thd_tx_isolation"}, source: "sql/sql_class.cc",
		gives: []accGive{{how: byReturn, steps: []accStep{thdField("tx_isolation", KindEnum)}, sizes: []int{4}}}},
	{symbols: []string{"thd_test_options"}, source: "sql/sql_class.cc",
		gives: []accGive{{how: byAnd, arg: 1, steps: []accStep{thdField("variables.option_bits", KindUint)}, sizes: []int{8}}}},
	{symbols: []string{"thd_sql_command"}, source: "sql/sql_class.cc", gives: []accGive{
		{how: byReturn, steps: []accStep{thdField("lex", KindPointer), {structName: "LEX", name: "sql_command", kind: KindEnum}}, sizes: []int{4}}}},
	{symbols: []string{"thd_in_lock_tables"}, source: "sql/sql_class.cc",
		gives: []accGive{{how: byReturn, steps: []accStep{thdField("in_lock_tables", KindBool)}, sizes: []int{1}}}},
	{symbols: []string{"thd_slave_thread"}, product: "mysql", source: "sql/sql_class.cc",
		gives: []accGive{{how: byReturn, steps: []accStep{thdField("slave_thread", KindBool)}, sizes: []int{1}}}},
	{symbols: []string{"_ZN3THD11enter_stageEPK17PSI_stage_info_v1PS0_PKcS5_j"}, product: "mysql", source: "sql/sql_class.cc", gives: stageGives(1)},
	{symbols: []string{"set_thd_stage_info"}, product: "mariadb", source: "sql/sql_class.cc", gives: stageGives(1)},
	{symbols: []string{"_ZN3THD10enter_condEP13st_mysql_condP14st_mysql_mutexPK17PSI_stage_info_v1PS4_PKcS9_i"}, source: "sql/sql_class.h, with mysys_var", gives: []accGive{
		{how: byStored, arg: 2, steps: []accStep{stMysys, {structName: "st_my_thread_var", name: "current_mutex", kind: KindPointer}}},
		{how: byStored, arg: 1, steps: []accStep{stMysys, {structName: "st_my_thread_var", name: "current_cond", kind: KindPointer}}}}},
	{symbols: []string{"thd_enter_cond"}, product: "mysql", only: "_ZN3THD13inc_lock_usecEy", source: "sql/sql_thd_api.cc, 8.0 on", gives: []accGive{
		{how: byStored, arg: 2, steps: []accStep{thdField("current_mutex", KindPointer)}},
		{how: byStored, arg: 1, steps: []accStep{thdField("current_cond", KindPointer)}}}},
	{symbols: []string{"_ZN3THD19shutdown_active_vioEv"}, source: "sql/sql_class.cc", gives: []accGive{
		{how: byTested, con: 0, steps: []accStep{thdField("active_vio", KindPointer)}}}},
	{symbols: []string{"_Z23thd_is_connection_aliveP3THD"}, source: "sql/sql_class.cc", gives: []accGive{
		{how: byTested, con: 0, steps: []accStep{thdField("net.error", KindUint)}, sizes: []int{1}}}},
	{symbols: []string{"_Z24thd_get_net_wait_timeoutP3THD"}, product: "mysql", source: "sql/sql_class.cc",
		gives: []accGive{{how: byReturn, steps: []accStep{thdField("variables.net_wait_timeout", KindUint)}, sizes: []int{8}}}},
	{symbols: []string{"my_net_set_write_timeout", "_Z24my_net_set_write_timeoutP3NETj"}, source: "sql/net_serv.cc", gives: []accGive{
		{how: byStored, arg: 1, steps: []accStep{{structName: "NET", name: "write_timeout", kind: KindUint}}, sizes: []int{4}},
		{how: byPassed, callee: []string{"vio_timeout", "_Z11vio_timeoutP3Vioji"}, arg: 0, steps: []accStep{{structName: "NET", name: "vio", kind: KindPointer}}}}},
	{symbols: []string{"my_net_set_read_timeout", "_Z23my_net_set_read_timeoutP3NETj"}, source: "sql/net_serv.cc", gives: []accGive{
		{how: byStored, arg: 1, steps: []accStep{{structName: "NET", name: "read_timeout", kind: KindUint}}, sizes: []int{4}}}},
	{symbols: []string{"vio_fd", "_Z6vio_fdP3Vio"}, source: "vio/viosocket.c", gives: givesValue(
		accStep{structName: "Vio", name: "mysql_socket.fd", kind: KindInt})},
}

// securityText is a getter of MySQL >= 5.7 that returns {text, length}.
func securityText(symbol, name, path string) accessor {
	return accessor{symbols: []string{symbol}, product: "mysql", source: "sql/auth/sql_security_ctx.cc", gives: []accGive{
		{how: byReturn, steps: []accStep{{structName: "Security_context", name: name + ".str", path: path + ".m_ptr", kind: KindPointer}}},
		{how: bySecond, steps: []accStep{{structName: "Security_context", name: name + ".length", path: path + ".m_length", kind: KindUint}}, sizes: []int{8}},
	}}
}
